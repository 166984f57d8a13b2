// The examples of the README of yourls-api: node yourls.mjs URL KEY FORMAT METHOD TARGET KEYWORD
import { document, XMLHttpRequest } from "./browser.mjs";

Object.assign(globalThis, { window: globalThis, document, XMLHttpRequest });
const { default: yourls } = await import("yourls-api");
const [url, signature, format, method, target, keyword] = process.argv.slice(2);
const told = (call) => new Promise((resolve) => call((result, response) => resolve({ result, response })));

yourls.connect(url, { signature }, { format, method });
const found = {
  made: await told((done) => yourls.shorten(target, { keyword, title: "Spring </script> sale" }, done)),
  again: await told((done) => yourls.shorten(target, keyword, done)),
  expanded: await told((done) => yourls.url(`http://hop.example/${keyword}`).expand(done)),
  counted: await told((done) => yourls.url(keyword).stats(done)),
  listed: await told((done) => yourls.stats({ filter: "last", limit: 2 }, done)),
  all: await told((done) => yourls.db.stats(done)),
  version: await told((done) => yourls.version(done)),
};
console.log(JSON.stringify(found));
