"""Previews and prefetches leave the visits of a link to its visitors."""

from __future__ import annotations

import pytest

from tests.integration.api_calls import create, problem


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Purpose": "prefetch"},
        {"Sec-Purpose": "prefetch;prerender"},
        {"Sec-Purpose": "Prefetch; anonymous-client-ip"},
        {"Purpose": "prefetch"},
        {"Purpose": "prerender"},
        {"X-Moz": "prefetch"},
        {"X-Purpose": "preview"},
    ],
)
def test_prefetch_spends_no_visit(api, visitor, headers):
    slug = create(api, max_visits=1)["slug"]

    ahead = [visitor.get(f"/{slug}", headers=headers) for _ in range(3)]

    for answer in ahead:
        problem(answer, 503, "not_prefetched")
        assert answer.headers["cache-control"] == "no-store"
    assert [visitor.get(f"/{slug}").status_code for _ in range(2)] == [302, 410]


PREVIEWS = [
    "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
    "WhatsApp/2.23.20.0",
    "Twitterbot/1.0",
    "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
    "Mozilla/5.0 (compatible; Discordbot/2.0; +https://discordapp.com)",
    "TelegramBot (like TwitterBot)",
    "LinkedInBot/1.0 (compatible; Mozilla/5.0; Jakarta Commons-HttpClient/3.1)",
    "Mozilla/5.0 (Windows NT 6.1; WOW64) SkypeUriPreview Preview/0.5 skype-url-preview@microsoft.com",
    "Mastodon/4.2.1 (http.rb/5.1.1; +https://mastodon.example/) Bot",
    "http.rb/5.1.1 (Mastodon/4.0.2; +https://mastodon.example/)",
    "Iframely/1.3.1 (+https://iframely.com/docs/about)",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    "Mozilla/5.0 (compatible; YandexBot/3.0)",
    "Synapse (bot; +https://github.com/matrix-org/synapse)",
    "Bluesky Cardyb/1.1; +mailto:support@bsky.app",
    "Mozilla/5.0 (compatible) Snap URL Preview Service; bot; snapchat; https://developers.snap.com/robots",
    "Pinterest/0.2 (+https://www.pinterest.com/bot.html)",
    "Mozilla/5.0 (compatible; ZulipURLPreview/9.0)",
    "Mattermost-Bot/1.1",
]


@pytest.mark.parametrize("agent", PREVIEWS)
def test_preview_spends_no_visit(api, visitor, agent):
    slug = create(api, max_visits=1)["slug"]

    previews = [visitor.get(f"/{slug}", headers={"User-Agent": agent}).status_code for _ in range(3)]

    assert previews == [302] * 3
    assert [visitor.get(f"/{slug}").status_code for _ in range(2)] == [302, 410]
    assert visitor.get(f"/{slug}", headers={"User-Agent": agent}).status_code == 410


@pytest.mark.parametrize(
    "agent",
    [
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/130.0.0.0 Safari/537.36",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Safari/604.1",
        "Mozilla/5.0 (Linux; Android 11; CUBOT NOTE 20) AppleWebKit/537.36 Chrome/95.0 Mobile Safari/537.36",
        # Browsers inside of apps.
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0) Mobile/15E148 Snapchat/12.60.0.37 (like Safari/8617)",
        "Mozilla/5.0 (Linux; Android 14) Chrome/119.0 Mobile Safari/537.36 [Pinterest/Android]",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0) Mobile/15E148 [FBAN/FBIOS;FBAV/443.0]",
        "Mozilla/5.0 (X11; Linux x86_64) Chrome/120.0 Electron/28.0 Slack_SSB/4.36.140",
        "curl/8.5.0",
        "",
    ],
)
def test_visitor_spends_a_visit(api, visitor, agent):
    slug = create(api, max_visits=1)["slug"]

    assert [visitor.get(f"/{slug}", headers={"User-Agent": agent}).status_code for _ in range(2)] == [
        302,
        410,
    ]


def test_prefetch_of_a_link_without_quota_redirects(api, visitor):
    slug = create(api)["slug"]

    assert visitor.get(f"/{slug}", headers={"Sec-Purpose": "prefetch"}).status_code == 302
