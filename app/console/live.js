// Keeps a page up to date while it is open and seen; the button pauses that. Figures come as server-sent events;
// a page without a stream is asked for again.
const AGAIN_MS = 5000, LATEST_MS = 60000, REFRESH_MS = 2000, ANSWER_MS = 8000;

for (const bar of document.querySelectorAll("[data-live]")) {
  const said = bar.querySelector("[role=status]"), button = bar.querySelector("button");
  let isPaused = false, isOver = false, wait = AGAIN_MS, timer, end = () => {};

  // Screen readers read it each time that it is written.
  const say = state => {
    bar.dataset.state = state;
    if (said.textContent !== bar.dataset[state]) said.textContent = bar.dataset[state];
  };
  const stop = () => {
    clearTimeout(timer);
    end();
    end = () => {};
  };
  const finish = () => {
    isOver = true;
    stop();
    button.hidden = true;
    say("over");
  };

  const follow = () => {
    const source = new EventSource(bar.dataset.live);
    end = () => source.close();
    source.addEventListener("figures", event => {
      const figures = JSON.parse(event.data);
      for (const one of document.querySelectorAll("[data-figure]")) {
        const text = figures[one.dataset.figure];
        if (text !== undefined && one.textContent !== text) one.textContent = text;
      }
      wait = AGAIN_MS;
      say("on");
    });
    source.addEventListener("over", finish);
    source.addEventListener("error", () => {
      say("off");
      // The browser itself connects again after all but a refusal.
      if (source.readyState !== EventSource.CLOSED) return;
      timer = setTimeout(start, wait);
      wait = Math.min(2 * wait, LATEST_MS);
    });
  };

  const refresh = async () => {
    const stopped = new AbortController();
    end = () => stopped.abort();
    try {
      const signal = AbortSignal.any([stopped.signal, AbortSignal.timeout(ANSWER_MS)]);
      const answer = await fetch(location.href, { cache: "no-store", signal });
      // The session is over, or may not see the page any more.
      if (answer.redirected || answer.status === 403) return finish();
      if (!answer.ok) throw new Error(answer.status);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of document.querySelectorAll("[data-part]")) {
        const now = page.getElementById(part.id);
        if (now && now.innerHTML !== part.innerHTML) part.replaceChildren(...now.childNodes);
      }
      say("on");
    } catch {
      if (stopped.signal.aborted) return;
      say("off");
    }
    timer = setTimeout(start, REFRESH_MS);
  };

  const start = () => {
    stop();
    if (isPaused || isOver || document.hidden) return;
    if ("refreshes" in bar.dataset) refresh();
    else follow();
  };

  button.addEventListener("click", () => {
    isPaused = !isPaused;
    button.textContent = isPaused ? bar.dataset.resume : bar.dataset.pause;
    if (isPaused) say("paused");
    start();
  });
  // Browsers bound the connections to a host: pages that are not seen take none.
  document.addEventListener("visibilitychange", start);
  bar.hidden = false;
  start();
}
