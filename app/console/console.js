// Improves pages that work without it: a button that copies a short URL.
for (const button of document.querySelectorAll("button[data-copies]")) {
  const field = document.getElementById(button.dataset.copies);
  const said = document.getElementById("said");
  if (!field || !navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(field.value);
      if (said) said.textContent = button.dataset.done;
    } catch {
      field.focus();
      field.select();
    }
  });
}

// Tells, while a form is filled in, where the link would lead and whether its slug is free.
for (const form of document.querySelectorAll("form[data-checks]")) {
  const box = form.querySelector("[data-checked]");
  const target = form.querySelector("[data-target]");
  const said = document.getElementById("slug-said");
  let timer, last;
  const check = async () => {
    last?.abort();
    last = new AbortController();
    const body = new URLSearchParams(new FormData(form));
    body.set("as", "json");
    try {
      const sent = { method: "POST", body, redirect: "error", signal: last.signal };
      const answer = await fetch(form.dataset.checks, sent);
      if (!answer.ok) return;
      const found = await answer.json();
      target.textContent = found.target;
      box.hidden = !found.target;
      if (!said) return;
      said.textContent = found.slug;
      said.classList.toggle("error", found.slug_is_wrong);
      form.elements.slug.ariaInvalid = found.slug_is_wrong ? "true" : null;
      document.getElementById("slug-error")?.remove();
    } catch {
      // The form itself tells it when it is sent.
    }
  };
  form.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(check, 400);
  });
}

for (const button of document.querySelectorAll("button[data-picks]")) {
  const boxes = [...button.form.querySelectorAll("input[type=checkbox]")];
  button.hidden = false;
  button.addEventListener("click", () => {
    const all = boxes.every(box => box.checked);
    for (const box of boxes) box.checked = !all;
  });
}

// Sends a file and shows what becomes of it below its form, which keeps the file for the next step.
for (const form of document.querySelectorAll("form[data-uploads]")) {
  const result = document.getElementById("result");
  const show = text => {
    const page = new DOMParser().parseFromString(text, "text/html");
    result.replaceChildren(...(page.getElementById("result") ?? page.getElementById("main")).childNodes);
  };
  form.addEventListener("submit", async event => {
    event.preventDefault();
    const body = new FormData(form);
    body.set(event.submitter.name, event.submitter.value);
    for (const button of form.querySelectorAll("button")) button.disabled = true;
    try {
      const answer = await fetch(form.action, { method: "POST", body });
      if (answer.redirected) {
        location.assign(answer.url);
        return;
      }
      // A proxy in between may have answered.
      if (!answer.headers.get("content-type")?.startsWith("text/html")) throw new Error(answer.status);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        text += part.value;
        show(text);
      }
      result.querySelector("[tabindex]")?.focus();
    } catch (error) {
      document.getElementById("said").textContent = `${form.dataset.uploads} (${error.message})`;
    } finally {
      for (const button of form.querySelectorAll("button")) button.disabled = false;
    }
  });
}

// A bookmark does nothing here: the policy of this page runs no script in an address.
for (const link of document.querySelectorAll("a[data-drags]")) {
  link.addEventListener("click", event => {
    event.preventDefault();
    document.getElementById("said").textContent = link.dataset.drags;
  });
}
