#!/usr/bin/env bash
# trio-ai-stream as a gateway of GetBusbar/benchmarking: four functions that its runners call.
#
# The runner exports MOCK_PORT (its upstream), CORES (as 0-3) and GW_DIR (this folder).
# TRIO_AI_STREAM_SPEC says what pip installs: by default the checkout that this file is in.
GW_KIND=native
GW_DISPLAY="trio-ai-stream"
GW_LANG=Python
GW_CLASS="chat-streaming server"
GW_PORT=8117
GW_PATH=/v1/chat/completions
GW_MODEL=gpt-4o-mini
GW_AUTH=dummy
GW_VENV="${GW_VENV:-$GW_DIR/venv}"

gw_build() {
  [ -x "$GW_VENV/bin/trio-ai-stream" ] && return 0
  python3 -m venv "$GW_VENV"
  "$GW_VENV/bin/pip" install -q "${TRIO_AI_STREAM_SPEC:-$GW_DIR/../..}" >"$GW_DIR/pip.log" 2>&1
}

gw_version() {
  "$GW_VENV/bin/pip" show trio-ai-stream 2>/dev/null | awk '/^Version:/ { print "trio-ai-stream==" $2 }'
}

# One worker for each core; every other variable is needed: where upstream is, and limits that
# a load of one client would meet (they are per client, and all of the load is one).
gw_launch() {
  local workers=$(( ${CORES##*-} - ${CORES%%-*} + 1 ))
  setsid taskset -c "$CORES" env \
    UPSTREAM=openrouter OPENROUTER_API_KEY="$GW_AUTH" OPENROUTER_BASE_URL="http://127.0.0.1:$MOCK_PORT/v1" \
    RATE_LIMIT=1000000 MAX_CONCURRENT_STREAMS=20000 MAX_CONNECTIONS=20000 \
    "$GW_VENV/bin/trio-ai-stream" serve --port "$GW_PORT" --workers "$workers" --log-level WARNING \
    </dev/null >"$GW_DIR/launch.log" 2>&1 &
}

_gw_first() { pgrep -o -f "trio-ai-stream serve --port $GW_PORT"; }

# Resident MiB of the first process and all that it started.
gw_rss() {
  local pid total=0 kib pids
  pids=$(_gw_first) || { echo 0; return; }
  for pid in $pids $(pgrep -P "$pids"); do
    kib=$(awk '/^VmRSS:/ { print $2 }' "/proc/$pid/status" 2>/dev/null)
    total=$(( total + ${kib:-0} ))
  done
  echo $(( total / 1024 ))
}

gw_diag() { tail -n 20 "$GW_DIR/launch.log" 2>/dev/null; }

gw_stop() {
  local pid
  pid=$(_gw_first) || return 0
  kill "$pid" 2>/dev/null
  timeout 40 tail --pid="$pid" -f /dev/null
}
