// The page of usage: asks `/usage` and shows its sums, the waste and the budgets.

import { $, count, el, fillWith, showLink } from "./dom.js";
import { getConfig, getUsage, key } from "./server.js";

const CHOICES = ["by", "since"];
const SUMS = [
  ["streams", "streams"],
  ["prompt_tokens", "prompt"],
  ["completion_tokens", "completion"],
  ["cost_usd", "cost, USD"],
  ["ended_early", "cut"],
  ["billed_after_close", "went on"],
  ["tokens_after_close", "tokens after"],
];

const number = (value) => value.toLocaleString("en");
const dollars = (value) => (value == null ? "-" : value.toLocaleString("en", { minimumFractionDigits: 6 }));
const shown = (name, value) => (name === "cost_usd" ? dollars(value) : number(value));
const total = (rows, name) => rows.reduce((sum, row) => sum + row[name], 0);
const cell = (text, ...more) => el("td", {}, text, ...more);

function table(heads, rows, foot) {
  const head = heads.map((name) => el("th", { scope: "col" }, name));
  const parts = [el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows)];
  return el("table", {}, ...parts, foot && el("tfoot", {}, foot));
}

const line = (name, ...cells) => el("tr", {}, el("th", { scope: "row" }, name ?? "not known"), ...cells);

/** A bar under a cost: its part of the dearest. */
function share(part) {
  const bar = el("span", { class: "share" });
  bar.style.width = `${100 * part}%`;
  return bar;
}

function sums(by, found) {
  const rows = by === "day" ? found.toSorted((one, other) => (one.day < other.day ? 1 : -1)) : found;
  const most = Math.max(0, ...rows.map((row) => row.cost_usd));
  const bar = (row, name) => (name === "cost_usd" && most ? share(row.cost_usd / most) : null);
  const body = rows.map((row) =>
    line(row[by], ...SUMS.map(([name]) => cell(shown(name, row[name]), bar(row, name)))),
  );
  const foot = line("total", ...SUMS.map(([name]) => cell(shown(name, total(rows, name)))));
  return table([by, ...SUMS.map(([, title]) => title)], body, foot);
}

function waste(found) {
  const rows = found.filter((row) => row.ended_early).map((row) => {
    const part = `${Math.round((100 * row.billed_after_close) / row.ended_early)} %`;
    const facts = [row.ended_early, row.billed_after_close, part, row.tokens_after_close];
    return line(row.provider, ...facts.map((fact) => cell(number(fact))));
  });
  return table(["provider", "cut streams", "went on", "of the cut", "tokens after"], rows);
}

function budgets(found) {
  const rows = found.map((one) => {
    const until = one.resets_at.slice(0, 16).replace("T", " ");
    return line(one.key, cell(one.period), ...["spent_usd", "limit_usd", "left_usd"].map((n) => cell(dollars(one[n]))), cell(`${until} UTC`));
  });
  return table(["key", "period", "spent, USD", "limit, USD", "left, USD", "new at"], rows);
}

function show(by, answer, providers) {
  const { rows } = answer;
  const whose = answer.key == null ? "Of all keys" : `Of your own key, ${answer.key}`;
  $("whose").textContent = answer.hosts === "all" ? `${whose}, on all hosts, in whole days (UTC).` : `${whose}.`;
  $("sums").replaceChildren(sums(by, rows));
  const how = ["exact", "reconciled", "estimated"].map((basis) => `${number(total(rows, basis))} ${basis}`);
  $("known").textContent = `How the bills are known: ${how.join(", ")}.`;
  $("waste").replaceChildren(waste(providers.rows));
  const limited = answer.budgets.filter((one) => one.limit_usd != null);
  $("budgets-section").hidden = !limited.length;
  $("budgets").replaceChildren(budgets(limited));
  showLink("live", count(total(rows, "streams"), "stream"));
}

let asked = 0; // questions so far: an answer to an earlier one may come later

async function ask() {
  const question = (asked += 1);
  const [by, since] = CHOICES.map((name) => $(name).value);
  history.replaceState(null, "", `?${new URLSearchParams({ by, since })}`);
  showLink("waiting", "asking");
  try {
    // Users are in each host's own ledger only.
    const hosts = by === "user" ? { hosts: "own" } : {};
    const both = [by, "provider"].map((group) => getUsage({ by: group, since, ...hosts }));
    const [answer, providers] = await Promise.all(both);
    if (question !== asked) return;
    show(by, answer, providers);
    $("failed").hidden = true;
    $("answer").hidden = false;
  } catch (error) {
    if (question !== asked) return;
    $("answer").hidden = true;
    $("failed").hidden = false;
    $("failed").textContent = error.message;
    showLink("lost", "no answer");
    if (error.status === 401) {
      $("key-option").hidden = false;
      $("key").focus();
    }
  }
}

async function begin() {
  const said = new URLSearchParams(location.search);
  $("since").value = "7d";
  for (const name of CHOICES) {
    const options = [...$(name).options].map((option) => option.value);
    if (options.includes(said.get(name))) $(name).value = said.get(name);
    $(name).addEventListener("change", ask);
  }
  fillWith($("key"), key.get);
  $("key").addEventListener("change", () => key.set($("key").value));
  $("query").addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  const config = await getConfig().catch(() => ({ key_needed: false }));
  $("key-option").hidden = !config.key_needed;
  await ask();
}

begin();
