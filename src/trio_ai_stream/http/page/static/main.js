// The page: wires the composer, the conversation and the live view.

import { $, el } from "./dom.js";
import { Exchange } from "./exchange.js";
import { LiveView } from "./live.js";
import { doneLine, errorCard, stopCard } from "./receipt.js";
import { Rendering } from "./render.js";
import { getConfig, key } from "./server.js";

const STARTERS = [
  ["simulator/default", "A healthy answer", "Tell me about cancel scopes."],
  ["simulator/endless", "An answer without end: stop it", "Go on until I stop you."],
  ["simulator/silent", "Upstream falls silent", "Say five words, then nothing."],
  ["simulator/drop", "Upstream breaks in the middle", "Say five words, then vanish."],
];

// The server's own record comes through the live view with its next look, unless the
// stream lived in another process; where a receipt is here already it is worth less.
const SOON_MS = 500;
const LATER_MS = 1500;

let config = null;
let live = null;
let exchange = null;
let messages = [];

async function begin() {
  config = await getConfig();
  const { budgets, faults, upstream, version } = config;
  $("version").textContent = version;
  $("simulated").hidden = upstream !== "simulator";
  $("fault-option").hidden = faults.length === 0;
  $("model-option").hidden = faults.length > 0;
  $("key-option").hidden = !config.key_needed;
  $("key").value = key.get();
  $("model").placeholder = config.default_model;
  for (const { model } of faults) {
    $("fault").append(el("option", { value: model }, model.replace("simulator/", "")));
  }
  for (const [model, title, prompt] of faults.length ? STARTERS : []) {
    const button = el("button", { type: "button" }, el("strong", {}, title), el("span", {}, prompt));
    button.addEventListener("click", () => {
      $("fault").value = model;
      describeFault();
      ask(prompt);
    });
    $("starters").append(el("li", {}, button));
  }
  describeFault();
  live = new LiveView(budgets);
  live.restart();
  // On a phone the focus would open the keyboard over what there is to read.
  if (config.key_needed && !key.get()) $("key").focus();
  else if (wide.matches) $("prompt").focus();
}

function describeFault() {
  const chosen = config.faults.find(({ model }) => model === $("fault").value);
  $("hint").textContent = chosen ? `${chosen.description}.` : "Enter sends, Shift+Enter makes a line, Esc stops.";
}

/** Send `text` with as much of the conversation before it as the server takes. */
async function ask(text) {
  if (exchange || !text.trim()) return;
  messages.push({ role: "user", content: text });
  const { left, sent } = fitting();
  $("welcome").hidden = true;
  $("messages").append(el("li", { class: "user" }, el("p", {}, text)));
  const answer = addAnswer(left);
  running(new Exchange());
  say("Answering");
  const body = { messages: sent };
  const model = config.faults.length ? $("fault").value : $("model").value.trim();
  if (model) body.model = model;
  const result = await exchange.run(body, answer);
  running(null);
  await finish(answer, result);
}

/** Leave out the oldest messages beyond the server's limit; never the last. */
function fitting() {
  let room = config.max_messages_length;
  let from = messages.length;
  while (from > 0 && (room -= [...messages[from - 1].content].length) >= 0) from -= 1;
  from = Math.min(from, messages.length - 1);
  return { sent: messages.slice(from), left: from };
}

function addAnswer(left) {
  const body = el("div", { class: "body" });
  const item = el("li", { class: "assistant", "aria-busy": "true" });
  if (left > 0) {
    item.append(el("p", { class: "line" }, `The server takes ${config.max_messages_length} characters: ${left} older left out.`));
  }
  item.append(body);
  $("messages").append(item);
  toEnd(true);
  const rendering = new Rendering(body, () => toEnd());
  let thoughts = null;
  return {
    item,
    rendering,
    began: (event) => (item.dataset.request = event.request_id),
    content: (text) => rendering.append(text),
    reasoning: (text) => {
      thoughts ??= item.insertBefore(el("p", { class: "thoughts" }), body);
      thoughts.append(text);
      toEnd();
    },
  };
}

async function finish(answer, result) {
  const { item, rendering } = answer;
  rendering.flush();
  item.removeAttribute("aria-busy");
  item.dataset.end = result.end;
  if (rendering.text) messages.push({ role: "assistant", content: rendering.text });
  if (result.end === "stopped") {
    const record = result.id === null ? null : await live.record(result.id, result.receipt ? SOON_MS : LATER_MS);
    item.append(stopCard(result, record));
    say(`Stopped. Outcome: ${record?.outcome ?? result.receipt?.outcome ?? "cancelled"}.`);
  } else if (result.end === "done") {
    item.append(doneLine(result));
    say("Answer complete");
  } else {
    item.append(errorCard(result));
    say(`The answer failed: ${result.message}`);
  }
  toEnd();
}

function running(now) {
  exchange = now;
  // The button that has the focus must not vanish under it.
  const focused = [$("send"), $("stop")].includes(document.activeElement);
  $("send").hidden = now !== null;
  $("stop").hidden = now === null;
  $("fresh").disabled = now !== null;
  if (focused) (now ? $("stop") : $("prompt")).focus();
}

const say = (text) => ($("status").textContent = text);

/** Keep the end in view, unless the reader has scrolled away from it. */
let following = true;
function toEnd(always = false) {
  const scroll = $("scroll");
  if (always) following = true;
  if (following) scroll.scrollTop = scroll.scrollHeight;
}

function submit(event) {
  event?.preventDefault();
  if (exchange || !$("prompt").value.trim()) return;
  const text = $("prompt").value;
  $("prompt").value = "";
  grow();
  ask(text);
}

function grow() {
  const prompt = $("prompt");
  prompt.style.height = "auto";
  prompt.style.height = `${Math.min(prompt.scrollHeight + 2, 200)}px`;
}

$("composer").addEventListener("submit", submit);
$("prompt").addEventListener("input", grow);
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") exchange?.stop();
});
$("stop").addEventListener("click", () => exchange?.stop());
$("fault").addEventListener("change", describeFault);
$("key").addEventListener("change", () => {
  key.set($("key").value);
  live.restart();
});
$("fresh").addEventListener("click", () => {
  messages = [];
  $("messages").replaceChildren();
  $("welcome").hidden = false;
  $("prompt").focus();
});
$("scroll").addEventListener("scroll", () => {
  const { scrollHeight, scrollTop, clientHeight } = $("scroll");
  following = scrollHeight - scrollTop - clientHeight < 60;
});

const wide = matchMedia("(min-width: 64rem)");
const unfold = () => ($("live").open = wide.matches);
wide.addEventListener("change", unfold);
unfold();
begin().catch((error) => {
  $("link").dataset.state = "lost";
  $("link").textContent = "the server does not answer";
  say(`The page could not start: ${error.message}`);
});
