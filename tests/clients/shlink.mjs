// The operations of Shlink's own client: node shlink.mjs URL KEY TARGET SLUG TAG
import { ShlinkApiClient } from "@shlinkio/shlink-js-sdk";
import { FetchHttpClient } from "@shlinkio/shlink-js-sdk/fetch";
import { NodeHttpClient } from "@shlinkio/shlink-js-sdk/node";

const [baseUrl, apiKey, longUrl, customSlug, tag] = process.argv.slice(2);
const failed = (call) => call.then((found) => ({ wrong: found }), (error) => error);
const found = {};
for (const [name, http, slug] of [
  ["node", new NodeHttpClient(), `${customSlug}-n`],
  ["fetch", new FetchHttpClient(), `${customSlug}-f`],
]) {
  const client = new ShlinkApiClient(http, { baseUrl, apiKey });
  const tags = [tag, name];
  const made = await client.createShortUrl({
    longUrl, customSlug: slug, tags, title: "Spring", maxVisits: 10, validUntil: "2099-01-31T12:00:00+01:00",
  });
  found[name] = {
    made,
    same: await client.createShortUrl({
      longUrl, tags, maxVisits: 10, validUntil: "2099-01-31T12:00:00+01:00", findIfExists: true,
    }),
    short: await client.createShortUrl({ longUrl, shortCodeLength: 5 }),
    got: await client.getShortUrl({ shortCode: slug }),
    edited: await client.updateShortUrl(
      { shortCode: slug, domain: null },
      { title: null, maxVisits: null, validUntil: null, tags: [tag], forwardQuery: false, crawlable: true },
    ),
    listed: await client.listShortUrls({
      page: "1", itemsPerPage: 5, tags: [tag], tagsMode: "all", searchTerm: slug,
      orderBy: { field: "dateCreated", dir: "DESC" }, excludePastValidUntil: true,
      startDate: "2020-01-01T00:00:00+01:00",
    }),
    tags: await client.listTags(),
    renamed: await client.editTag({ oldName: tag, newName: `${tag}-${name}` }),
    conflict: await failed(client.editTag({ oldName: `${tag}-${name}`, newName: name + "-kept" })),
    untagged: await client.deleteTags([`${tag}-${name}`]),
    domains: await client.listDomains(),
    health: await client.health(),
    overview: await client.getVisitsOverview(),
    visits: await client.getShortUrlVisits({ shortCode: slug }),
    orphans: await client.getOrphanVisits(),
    rules: await client.getShortUrlRedirectRules({ shortCode: slug }),
    taken: await failed(client.createShortUrl({ longUrl, customSlug: slug })),
    invalid: await failed(client.createShortUrl({ longUrl: "not a url" })),
    stats: await failed(client.tagsStats()),
    mercure: await failed(client.mercureInfo()),
    removed: (await client.deleteShortUrl({ shortCode: slug })) ?? null,
    gone: await failed(client.getShortUrl({ shortCode: slug })),
    forbidden: await failed(new ShlinkApiClient(http, { baseUrl, apiKey: "wrong" }).listTags()),
  };
}
console.log(JSON.stringify(found));
