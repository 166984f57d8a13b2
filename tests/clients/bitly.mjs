// The examples of the README of bitly, which calls port 443: node bitly.mjs PORT KEY TARGET
import https from "node:https";
import tls from "node:tls";
import { createRequire } from "node:module";

const [port, key, target] = process.argv.slice(2);
https.Agent.prototype.createConnection = (options, done) =>
  tls.connect({ ...options, host: "127.0.0.1", port: Number(port), servername: "localhost" }, done);
const { BitlyClient } = createRequire(import.meta.url)("bitly");
const bitly = new BitlyClient(key, { apiUrl: "localhost" });
const failed = (call) => call.then((found) => ({ wrong: found }), (error) => error);
const made = await bitly.shorten(target);
const found = {
  made,
  again: await bitly.shorten(target),
  expanded: await bitly.expand(made.link),
  info: await bitly.info(made.link),
  raw: await bitly.bitlyRequest("bitlinks", { long_url: `${target}/2`, title: "Spring", tags: ["a"] }),
  clicks: await bitly.bitlyRequest(`bitlinks/${made.id}/clicks/summary`, { unit: "day", units: -1 }, "GET"),
  groups: await bitly.bitlyRequest("groups", {}, "GET"),
  invalid: await failed(bitly.shorten("not a url")),
  missing: await failed(bitly.expand("bit.ly/nothing-here")),
  forbidden: await failed(new BitlyClient("wrong", { apiUrl: "localhost" }).shorten(target)),
};
console.log(JSON.stringify(found));
