#!/bin/sh
# Adds the user that gateways and workers log in with to definitions.json, and becomes the
# command it is given. The user may touch what Hopgate declares, and nothing else.
set -eu
umask 077

{
  cat <<END
{
  "users": [{ "name": "hopgate", "password": "$AMQP_PASSWORD", "tags": "" }],
  "permissions": [
    {
      "user": "hopgate",
      "vhost": "/",
      "configure": "^(hopgate\\\\.|amq\\\\.gen-)",
      "write": "^(hopgate\\\\.|amq\\\\.gen-)",
      "read": "^(hopgate\\\\.|amq\\\\.gen-)"
    }
  ],
END
  # The image has no tool for JSON; the first line of the file is its opening brace.
  tail -n +2 "$(dirname "$0")/definitions.json"
} >"${DEFINITIONS_DIRECTORY:-/run/hopgate}/definitions.json"
exec "$@"
