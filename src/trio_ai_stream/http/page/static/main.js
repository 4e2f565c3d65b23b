// The page: wires the composer, the conversation, its choices and the live view.

import { $, button, composes, el, fillWith, showLink, smallButton } from "./dom.js";
import { Exchange } from "./exchange.js";
import { showHistory } from "./history.js";
import { LiveView } from "./live.js";
import { chosen, fillOptions, options, writable } from "./options.js";
import { Picker } from "./picker.js";
import { getConfig, getModels, key } from "./server.js";
import { choice, conversations } from "./store.js";
import { Thread } from "./thread.js";

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
const RETRY_MS = 1500;
const SAVE_MS = 1000;
const TITLE_LENGTH = 60;
const UNKEPT = "This chat lasts only as long as this page: the browser's storage is full, or closed to it.";

const draft = choice("draft"); // the last one of any tab, for a new one
const ownDraft = choice("draft", "sessionStorage");
const lastOpen = choice("conversation", "sessionStorage"); // of this tab, through reloads
const bannerAway = choice("banner away");
const kept = options.get() ?? {};

let config = null;
let live = null;
let exchange = null;
let waiting = null; // the message that waits for the server: {back()}
let editing = null; // the message that the composer's text will take the place of
let conversation = conversations.fresh();

const thread = new Thread({ edit, retry, reopen, fresh, key: askForKey });
new Picker($("model"), $("models"), findModels, describeModel);

/** Ask for the server's configuration until it is here. */
async function begin() {
  while (config === null) {
    try {
      config = await getConfig();
    } catch {
      showLink("lost", "the server does not answer; trying again");
      await pause(RETRY_MS);
    }
  }
  const { budgets, faults, upstream, version } = config;
  $("version").textContent = version;
  $("simulated").hidden = upstream !== "simulator" || bannerAway.get() === true;
  $("key-option").hidden = !config.key_needed;
  fillWith($("key"), key.get);
  $("model").placeholder = config.default_model;
  // A name is one of an upstream's: the simulator's mean nothing to OpenRouter.
  if (kept.upstream && kept.upstream !== upstream && $("model").value === kept.model) $("model").value = "";
  if (faults.length && !$("model").value) $("model").value = "simulator/default";
  for (const [model, title, prompt] of faults.length ? STARTERS : []) {
    const start = () => {
      $("model").value = model;
      describeModel();
      ask(prompt);
    };
    $("starters").append(el("li", {}, button({}, start, el("strong", {}, title), el("span", {}, prompt))));
  }
  describeModel();
  live = new LiveView(budgets);
  live.restart();
  // On a phone the focus would open the keyboard over what there is to read.
  if (config.key_needed && !key.get()) $("key").focus();
  else if (wide.matches && document.activeElement === document.body) $("prompt").focus();
}

async function findModels() {
  return config?.faults.length ? config.faults : getModels();
}

function describeModel() {
  const chosen = config?.faults.find(({ model }) => model === $("model").value);
  $("hint").textContent = chosen ? `${chosen.description}.` : "Enter sends, Shift+Enter makes a line, Esc stops.";
  const upstream = config?.upstream ?? kept.upstream;
  options.set({ ...options.get(), model: $("model").value, upstream });
}

/** Show the field for the key: the server may want one since this page was loaded. */
function askForKey() {
  $("key-option").hidden = false;
  $("key").focus();
}

/** Send `text` as the conversation's next message. */
async function ask(text) {
  if (exchange || waiting || !text.trim()) return;
  const message = { role: "user", content: text };
  conversation.messages.push(message);
  conversation.title ||= titleOf(text);
  const item = thread.addUser(message, conversation.messages.length - 1);
  save();
  await answer(item);
}

function titleOf(text) {
  const words = text.replace(/[\s#*`|]+/g, " ").trim() || text.trim();
  return [...words].slice(0, TITLE_LENGTH).join(""); // by whole characters
}

/** Have the last message answered; while the server is gone it waits, and says so. */
async function answer(item) {
  let result = null;
  let shown = null;
  const asked = conversation;
  const message = { role: "assistant", content: "", model: $("model").value };
  const at = conversation.messages.length;
  while (result === null) {
    if (config === null && !(await serverIsBack(item))) return;
    const { left, sent } = fitting();
    shown = thread.addAnswer(message);
    if (left > 0) shown.note(`The server takes ${config.max_messages_length} characters: ${left} older left out.`);
    conversation.messages[at] = message;
    say("Answering");
    result = await follow(new Exchange(), { ...request(), messages: sent }, shown, message);
    if (conversation !== asked) return running(null); // it was deleted
    if (result.end === "error" && result.type === "connection_lost" && !result.begun) {
      // Nothing has begun: the message waits for the server to come back.
      shown.item.remove();
      conversation.messages.length = at;
      save(); // what is kept may hold the answer that did not begin
      running(null);
      result = null;
      if (!(await serverIsBack(item))) return;
    }
  }
  await over(result, shown, message, at);
}

/** Stream an answer into the page, and keep all of it; return how it ended. */
async function follow(one, body, shown, message) {
  running(one);
  const saving = setInterval(save, SAVE_MS);
  addEventListener("pagehide", save);
  const lost = () => {
    shown.lost();
    say("The connection is lost: reconnecting");
  };
  const found = () => {
    shown.found();
    say("Connected again");
  };
  const began = (event) => {
    shown.began(event);
    message.resume = one.resume;
    save();
  };
  const result = await one.run(body, { ...shown, began, lost, found });
  clearInterval(saving);
  removeEventListener("pagehide", save);
  return result;
}

/** Show how an answer ended, and keep it, unless another tab does. */
async function over(result, shown, message, at) {
  if (result.end !== "elsewhere") {
    message.result = result;
    if (result.end === "stopped") {
      message.record = await live?.record(result.id, result.receipt ? SOON_MS : LATER_MS);
    }
    delete message.resume;
    await save();
  }
  running(null);
  await thread.end(shown, { ...message, result }, at);
  say(spoken({ ...message, result }));
}

/** Go on with the answer that another page, or this one before a reload, has begun. */
async function goOn(shown) {
  const at = conversation.messages.length - 1;
  const message = conversation.messages[at];
  const result = await follow(new Exchange(message.resume), null, shown, message);
  await over(result, shown, message, at);
}

function spoken({ result, record }) {
  if (result.end === "done") return "Answer complete";
  if (result.end === "elsewhere") return "The answer goes on in another tab";
  if (result.end !== "stopped") return `The answer failed: ${result.message}`;
  return `Stopped. Outcome: ${record?.outcome ?? result.receipt?.outcome ?? "cancelled"}.`;
}

/** Wait for the server under the message; false if the message was taken back. */
async function serverIsBack(item) {
  const revoke = smallButton("Take back", () => waiting?.back());
  const note = el("p", { class: "line waits" }, "Not sent: the server does not answer. It will be sent as soon as it does. ", revoke);
  item.append(note);
  thread.toEnd();
  say("Not sent yet: the server does not answer");
  let takeBack;
  const taken = new Promise((resolve) => (takeBack = () => resolve(true)));
  const isBack = async () => config !== null && getConfig().then(() => true, () => false);
  wait({
    back() {
      takeBack();
      const { content } = conversation.messages.pop();
      item.remove();
      if (conversation.messages.length === 0) {
        conversations.remove(conversation.id);
        show(conversations.fresh()); // with a name of its own
      } else save();
      fill($("prompt").value ? `${content}\n${$("prompt").value}` : content);
    },
  });
  let [back, mine] = [false, true];
  while (mine && !back) {
    mine = !(await Promise.race([taken, pause(config === null ? 100 : RETRY_MS)]));
    if (mine) mine = !(await Promise.race([taken, isBack().then((is) => void (back = is))]));
  }
  wait(null);
  note.remove();
  return mine;
}

/** What is chosen in the drawer, as `POST /chat` wants it. */
function request() {
  const { temperature, max_tokens } = chosen();
  const model = $("model").value.trim();
  return {
    ...(model ? { model } : {}),
    ...(temperature === null ? {} : { temperature }),
    ...(max_tokens === null ? {} : { max_tokens }),
    include_reasoning: true,
    include_tool_calls: true,
  };
}

/** Leave out the oldest messages beyond the server's limit; never the last. */
function fitting() {
  const { system } = chosen();
  const messages = conversation.messages
    .filter(({ content }) => content)
    .map(({ role, content }) => ({ role, content: writable(content) }));
  let room = config.max_messages_length - [...system].length;
  let from = messages.length;
  while (from > 0 && (room -= [...messages[from - 1].content].length) >= 0) from -= 1;
  from = Math.min(from, messages.length - 1);
  const first = system ? [{ role: "system", content: system }] : [];
  return { sent: [...first, ...messages.slice(from)], left: from };
}

async function save() {
  if (conversation.messages.length === 0) return;
  const saved = conversation;
  lastOpen.set(saved.id);
  const { apart, kept } = await conversations.save(saved);
  if (saved !== conversation) return;
  if ($("unkept").hidden !== kept) {
    $("unkept").hidden = kept;
    $("unkept").textContent = kept ? "" : UNKEPT;
  }
  if (!apart) return;
  lastOpen.set(saved.id);
  tell("Another tab has gone on with this conversation: this one is kept beside it.");
}

function show(record) {
  conversation = conversations.take(record);
  lastOpen.set(record.id);
  $("unkept").hidden = $("notice").hidden = true;
  stopEditing();
  const focused = $("messages").contains(document.activeElement);
  const open = thread.show(record.messages);
  if (open) goOn(open);
  if (focused) refocus();
}

/** The button that had the focus is gone: what is next to do has it instead. */
const refocus = () => $(exchange ? "stop" : "prompt").focus();

/** Show this conversation as it is kept: another tab may have gone on with it. */
async function reopen() {
  const record = await conversations.get(conversation.id);
  if (record && !exchange && !waiting) show(record);
}

/** Take a message of the user's back into the composer; sending replaces what follows. */
function edit(at) {
  if (exchange || waiting) return;
  editing = { at, before: editing?.before ?? $("prompt").value };
  $("editing").hidden = false;
  fill(conversation.messages[at].content);
}

function stopEditing() {
  if (editing === null) return;
  $("editing").hidden = true;
  fill(editing.before);
  editing = null;
}

/** Have the question before message `at` answered once more. */
function retry(at) {
  if (exchange || waiting) return;
  stopEditing(); // what is edited may be among what goes
  cutOff(at, at);
  answer($("messages").lastElementChild);
  refocus();
}

/** Let go of message `at` and what follows. Where questions from `later` on would be lost, the chat as it was stays. */
function cutOff(at, later) {
  const loses = conversation.messages.slice(later).some(({ role }) => role === "user");
  if (loses) conversation = conversations.branch(conversation, at);
  else conversation.messages.length = at;
  thread.show(conversation.messages);
  $("messages").querySelector(".waits")?.remove();
  $("notice").hidden = true;
  if (loses) tell("The chat as it was, with all that followed, is kept under Chats.");
}

function fresh() {
  if (exchange || waiting) return;
  show(conversations.fresh());
  $("prompt").focus();
}

function running(now) {
  exchange = now;
  // The button that has the focus must not vanish under it.
  const focused = [$("send"), $("stop")].includes(document.activeElement);
  $("send").hidden = now !== null;
  $("stop").hidden = now === null;
  occupy();
  if (focused) (now ? $("stop") : $("prompt")).focus();
}

function wait(now) {
  waiting = now;
  if (now && document.activeElement === $("send")) $("prompt").focus(); // before it is disabled
  $("send").disabled = now !== null;
  occupy();
}

/** While an answer runs, or a message waits, nothing else of the conversation can be done: its buttons say so. */
function occupy() {
  const occupied = exchange !== null || waiting !== null;
  $("fresh").disabled = occupied;
  $("messages").classList.toggle("busy", occupied);
}

const say = (text) => ($("status").textContent = text);

/** Say what all must know: until the next message is sent it stands above the composer. */
function tell(text) {
  $("notice").hidden = false;
  $("notice").textContent = text;
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function submit(event) {
  event?.preventDefault();
  if (exchange || waiting || !$("prompt").value.trim()) return;
  const text = $("prompt").value;
  if (editing) {
    const { at } = editing;
    const named = at === 0 && conversation.title === titleOf(conversation.messages[0].content);
    cutOff(at, at + 1);
    if (named && conversation.title) conversations.rename(conversation.id, titleOf(text));
    stopEditing();
  } else {
    $("notice").hidden = true;
    fill("");
  }
  ask(text);
}

function fill(text) {
  $("prompt").value = text;
  typed();
  $("prompt").focus();
}

function typed() {
  const prompt = $("prompt");
  if (editing === null) [draft, ownDraft].forEach((one) => one.set(prompt.value));
  prompt.style.height = "auto";
  prompt.style.height = `${Math.min(prompt.scrollHeight + 2, 200, innerHeight / 4)}px`;
}

$("composer").addEventListener("submit", submit);
$("prompt").addEventListener("input", typed);
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !composes(event)) submit(event);
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || composes(event) || event.defaultPrevented || document.querySelector("dialog[open]")) return;
  if (exchange) exchange.stop();
  else if (editing) stopEditing();
});
$("stop").addEventListener("click", () => exchange?.stop());
$("edit-cancel").addEventListener("click", stopEditing);
function takeKey() {
  key.set($("key").value);
  live?.restart();
}
$("key").addEventListener("change", takeKey);
$("key").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault(); // it would send what stands in the message box
  takeKey();
});
$("fresh").addEventListener("click", fresh);
$("banner-close").addEventListener("click", () => {
  bannerAway.set(true);
  $("simulated").hidden = true;
  $("prompt").focus();
});

for (const name of ["settings", "history"]) {
  $(`${name}-close`).addEventListener("click", () => $(name).close());
  $(name).addEventListener("click", (event) => {
    if (event.target === $(name)) $(name).close(); // beside it
  });
}
$("settings-open").addEventListener("click", () => $("settings").showModal());
$("history-open").addEventListener("click", async () => {
  await showHistory({
    current: conversation.id,
    async open(id) {
      const record = await conversations.get(id);
      if (exchange || waiting) return "An answer runs in the chat that is open: stop it first, or let it end.";
      if (!record) return "This chat has been deleted in another tab.";
      show(record);
      $("history").close();
    },
    removing: leave,
  });
  $("history").showModal();
});

/** Let go of the chat that is open, if it is this one: it is being deleted. */
function leave(id) {
  if (id !== conversation.id) return false;
  waiting?.back();
  exchange?.stop();
  show(conversations.fresh());
  return true;
}
conversations.onRemoved((id) => {
  if (leave(id)) tell("This chat was deleted in another tab.");
});

const wide = matchMedia("(min-width: 64rem)");
const unfold = () => ($("live").open = wide.matches);
wide.addEventListener("change", unfold);
unfold();

$("model").value = kept.model ?? "";
addEventListener("pagehide", () => ($("model").defaultValue = $("model").value)); // Safari resets it when the page is shown again
fillOptions();
// Somebody may have typed before this script was here.
$("prompt").value = [...new Set([ownDraft.get() ?? draft.get(), $("prompt").value])].filter(Boolean).join("\n");
typed();
begin();
const last = await conversations.get(lastOpen.get() ?? "");
if (last && conversation.messages.length === 0) show(last);
