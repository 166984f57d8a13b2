// What yourls-api needs of a browser: requests, and scripts that load and run.
import vm from "node:vm";

export class XMLHttpRequest {
  open(method, url) {
    Object.assign(this, { method, url, headers: {}, readyState: 0 });
  }
  setRequestHeader(name, value) {
    this.headers[name] = value;
  }
  async send(body) {
    const answer = await fetch(this.url, { method: this.method, headers: this.headers, body });
    this.status = answer.status;
    this.responseText = await answer.text();
    this.readyState = 4;
    this.onreadystatechange();
  }
}

export const document = {
  createElement: () => ({
    setAttribute(name, value) {
      this[name] = value;
    },
  }),
  getElementsByTagName: () => [
    {
      appendChild: async (script) => {
        script.parentNode = { removeChild() {} };
        const answer = await fetch(script.src);
        vm.runInThisContext(await answer.text());
      },
    },
  ],
};
