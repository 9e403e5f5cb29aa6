// The browser of samples: filters, a list in pages, and one task through all rounds.
// Texts of models and files enter the document as text nodes only; looks are set by classes.
"use strict";
(() => {
const PAGE = 50, RIGHT = 1 - 1e-9, SNIPPET = 160;
const AT_ONCE = { behavior: "instant" }; // a smooth scroll would be ended by the next
const $ = (id) => document.getElementById(`samples-${id}`);
const { places, tasks, systems, tags, ...all } = JSON.parse($("data").textContent);
const form = $("filters"), list = $("list"), open = $("open"), count = $("count"), help = $("help");
const STAGES = { train: "training", resampled: "resampled", rationalised: "rationalised", gate: "gate",
  test: "test", revised: "revised test" };
const OPEN = "not finished"; // a round that is; other decisions are about what its gate measured
const MARKS = { right: "✓", wrong: "✗", unscored: "?" };
const manyRuns = new Set(places.map((place) => place.run)).size > 1;
const tagPairs = Object.entries(tags).flatMap(([tag, values]) => values.map((value) => [tag, value]));
const number = (n) => n.toLocaleString("en");
const many = (n, thing) => `${number(n)} ${thing}${n === 1 ? "" : "s"}`;
const attempt = (what) => { try { return what(); } catch { return null; } }; // a browser may keep nothing for files
const KEPT = `samples ${location.pathname}`;
const reloaded = performance.getEntriesByType("navigation")[0]?.type === "reload";
const clamp = (n, last) => Math.min(Math.max(0, n), Math.max(0, last));

// --- elements

// Controls, bidi overrides and characters of no width act or hide, so they are shown; joiners stay.
const HIDDEN =
  /[\0-\x08\v-\x1f\x7f-\x9f\xad\u200b\u2028-\u202e\u2060-\u2069\ufeff\u{e0000}-\u{e007f}]/gu;
const visible = (text) => text.replaceAll("\r\n", "\n").replace(HIDDEN, (one) => {
  const code = one.codePointAt(0);
  return code < 32 ? String.fromCharCode(0x2400 + code)
    : `‹U+${code.toString(16).toUpperCase().padStart(4, "0")}›`;
});

const also = Object.assign; // properties to an element

function element(what, ...children) { // "name.class.class"; strings among the children become text nodes
  const [name, ...classes] = what.split(".");
  const made = document.createElement(name);
  made.className = classes.join(" ");
  made.append(...children.filter(Boolean).map((one) => (typeof one === "string" ? visible(one) : one)));
  return made;
}

// May be written from right to left.
const foreign = (...rest) => also(element(...rest), { dir: "auto" });
const link = (row, ...rest) => also(element(...rest), { href: address(row) });
const mark = ({ outcome }) =>
  also(element(`span.samples-mark.samples-${outcome}`, MARKS[outcome]), { ariaHidden: "true" });
const said = (text) => element("span.visually-hidden", text);
const badge = (text, kind = "") => element(`span.badge.${kind}`, text);

// --- rows

const rows = [], byKey = new Map(), byId = new Map();
const address = (row) => `#sample=${encodeURIComponent(row.key)}`;
const even = (text) => text.normalize("NFKC").toLowerCase();
for (const task of tasks) {
  task.question = task.prompt.at(-1)?.content || task.id;
  task.rows = (task.answers ?? []).map((answer) => {
    const place = places[answer.place], reward = answer.reward ?? null;
    const run = manyRuns ? place.run : "";
    const row = { task, answer, place, reward, key: `${answer.id}@${run && `${run}/`}${place.name}/${answer.stage}`,
      where: `${run && `${run}, `}${place.label}, ${STAGES[answer.stage]}`, cut: answer.finish === "length",
      outcome: reward === null ? "unscored" : reward >= RIGHT ? "right" : "wrong" };
    byKey.set(row.key, row);
    byId.set(answer.id, row);
    return row;
  });
  if (task.rows.length && !byId.has(task.id)) byId.set(task.id, task.rows.at(-1));
  rows.push(...task.rows);
}
const haystack = (row) => row.hay ??= even([...row.task.prompt.map((one) => one.content), row.answer.text,
  row.answer.id, ...(row.answer.critiques ?? []).map((one) => one.text)].join("\n"));

// --- filters

let found = rows, current = -1, page = 0, opened = null, words = [];

function fill(name, pairs) {
  form.elements[name].append(
    ...pairs.map(([value, label]) => also(element("option", label), { value })));
  form.elements[name].closest("label").hidden = form.elements[name].length < 3;
}

const ONLY = {
  "became-right": (answer) => answer.became === "right",
  "became-wrong": (answer) => answer.became === "wrong",
  learnt: (answer) => answer.learnt,
  critique: (answer) => answer.critiques,
  revision: (answer) => answer.parent,
};

function matcher() {
  const asked = Object.fromEntries(new FormData(form));
  words = (even(asked.text).match(/"[^"]+"|[^\s"]+/g) ?? []).map((word) => word.replaceAll('"', ""));
  const [tag, value] = asked.tag ? tagPairs[asked.tag] : [];
  return (row) => (!asked.run || row.place.run === asked.run)
    && (!asked.round || row.place.name === asked.round)
    && (!asked.stage || row.answer.stage === asked.stage)
    && (!tag || row.task.tags?.[tag] === value)
    && (!asked.outcome || row.outcome === asked.outcome || (asked.outcome === "cut" && row.cut)
      || row.answer.failure === asked.outcome)
    && (!asked.least || (row.reward !== null && row.reward >= asked.least))
    && (!asked.most || (row.reward !== null && row.reward <= asked.most))
    && (!asked.only || ONLY[asked.only](row.answer))
    && words.every((word) => haystack(row).includes(word));
}

function filter() {
  attempt(() => sessionStorage.setItem(KEPT, JSON.stringify([...new FormData(form)])));
  found = rows.filter(matcher());
  current = found.indexOf(opened);
  const shown = new Set(found.map((row) => row.task)).size;
  count.textContent = found.length
    ? `${number(found.length)} of ${many(rows.length, "answer")}, ${many(shown, "task")}`
    : rows.length ? "No answer fits. Clear the filters to see all." : "There are no answers yet.";
  showPage(Math.floor(current / PAGE));
}

// --- the list

function snippet(text) { // one line, from near the first word that was searched for
  const line = text.slice(0, 20000).replace(/\s+/g, " ").trim();
  const at = words.length ? even(line).indexOf(words[0]) : -1;
  const from = at > SNIPPET / 2 ? at - 20 : 0, to = from + SNIPPET;
  return (from ? "… " : "") + line.slice(from, to) + (to < line.length ? " …" : "");
}

function entry(row, before) {
  const { answer, cut } = row;
  const notes = [cut && "cut off", answer.failure, answer.became && `became ${answer.became}`, answer.learnt && "learnt"];
  return element("li", link(row, "a.samples-entry",
    element("span.samples-head", mark(row), said(`${row.outcome}, `), row.reward?.toFixed(3) ?? "–",
      element("span", row.where), ...notes.filter(Boolean).map((note) => badge(note))),
    row.task !== before && element("bdi.samples-question", snippet(row.task.question)),
    element("bdi.samples-answer", snippet(answer.text) || "(empty)")));
}

function showPage(wanted) {
  const last = Math.ceil(found.length / PAGE) - 1;
  page = clamp(wanted, last);
  const from = page * PAGE, shown = found.slice(from, from + PAGE);
  list.replaceChildren(...shown.map((row, i) => entry(row, shown[i - 1]?.task)));
  list.start = from + 1;
  list.scrollTop = 0;
  $("pages").hidden = last < 1;
  $("page").textContent = `${number(from + 1)}–${number(from + shown.length)}`;
  $("back").disabled = page === 0;
  $("on").disabled = page >= last;
  markCurrent();
  highlight();
}

const linkOf = (index) => list.children[index - page * PAGE]?.firstElementChild;

function markCurrent() {
  for (const one of list.querySelectorAll("[aria-current]")) one.ariaCurrent = null;
  if (opened && found[current] === opened) also(linkOf(current) ?? {}, { ariaCurrent: "true" });
}

function move(step) {
  if (!found.length) return;
  const focused = [...list.children].indexOf(document.activeElement.closest("li"));
  current = clamp((focused < 0 ? current : page * PAGE + focused) + step, found.length - 1);
  if (!linkOf(current)) showPage(Math.floor(current / PAGE));
  if (opened) location.replace(address(found[current])); // one step back leads out, not through all
  else linkOf(current).focus();
}

// --- one task

function step({ where, rows: group }, row) { // of the task's way through the rounds
  const right = group.filter((one) => one.outcome === "right").length;
  const kind = right === group.length ? "right" : group.every((one) => one.reward === null) ? "unscored" : "wrong";
  const made = link(group.includes(row) ? row : group[0], "a", where, element(`span.samples-${kind}`,
    group.length === 1 ? `${MARKS[kind]} ${kind}` : `${right} of ${group.length} right`));
  if (group.includes(row)) made.ariaCurrent = "step";
  return element("li", made);
}

function compared(diff) {
  return foreign("p.samples-text", ...diff.map(([sign, text]) => (sign === "=" ? text
    : element(sign === "-" ? "del" : "ins", said(sign === "-" ? " [removed: " : " [added: "), text, said("] ")))));
}

function rewards(scores) {
  return element("table.samples-rewards", element("caption.visually-hidden", "Rewards"),
    element("tbody", ...scores.map(({ name, value, detail, error }) => element("tr",
      also(foreign("th.text", name), { scope: "row" }), element("td", value?.toFixed(3) ?? "unscored"),
      foreign("td.text", detail, detail && error && "; ", error)))));
}

function criticism({ text, score, verdict, error, votes }) {
  const figures = [score !== undefined && `score ${score.toFixed(3)}`, verdict && `verdict ${verdict}`,
    votes && `votes ${votes}`];
  return element("div.samples-critique",
    element("h6", ["Critique", ...figures.filter(Boolean)].join(", ")),
    foreign("p.samples-text", text || "(empty)"), error && foreign("p.samples-error", error));
}

function card(row, chosen) {
  const { answer, reward } = row;
  const facts = [row.outcome, reward !== null && reward < RIGHT && `reward ${reward.toFixed(3)}`,
    row.cut && "cut off at the limit", answer.failure, answer.became && `became ${answer.became}`, ...(answer.learnt ?? [])];
  const kind = answer.parent ? "Revision" : answer.fresh ? "Asked again" : "Answer";
  const made = element("div.samples-card",
    element("h5", mark(row), `${kind}: ${facts.filter(Boolean).join(" · ")}`),
    answer.diff ? compared(answer.diff) : foreign("p.samples-text", answer.text || "(empty)"),
    answer.diff && element("details", element("summary", "Without marks"),
      foreign("p.samples-text", answer.text)),
    answer.parent && !answer.diff && element("p.muted", "Not compared: its draft is not here, or both are long."),
    answer.error && foreign("p.samples-error", answer.error),
    answer.rewards && rewards(answer.rewards),
    ...(answer.critiques ?? []).map(criticism),
    element("p.samples-id", link(row, "a", answer.id)));
  return chosen ? also(made, { id: "samples-chosen", ariaCurrent: "true" }) : made;
}

function about({ prompt, references = [], tags: own = {} }, system) {
  const facts = [system !== undefined && ["system message", systems[system]],
    ...prompt.slice(0, -1).map((one) => [one.role, one.content]),
    ...references.map((text) => ["reference", text]), ...Object.entries(own)];
  return element("dl.samples-facts", ...facts.filter(Boolean).map(([name, text]) => element("div",
    element("dt", name), foreign("dd.samples-text", text))));
}

function show(row, still) { // still: the focus and the place on the page stay
  const close = also(element("button.samples-close", "Close"), { type: "button", onclick: shut });
  const title = also(foreign("h3.samples-text", row.task.question), { id: "samples-open-title" });
  const parts = [];
  for (const one of row.task.rows) {
    if (parts.at(-1)?.where !== one.where) parts.push({ where: one.where, place: one.place, rows: [] });
    parts.at(-1).rows.push(one);
  }
  const way = also(element("ol.samples-way", ...parts.map((part) => step(part, row))),
    { ariaLabel: "This task round by round" });
  open.replaceChildren(close, title, about(row.task, row.answer.system), way,
    element("div.samples-cards", ...parts.map(({ where, place, rows: own }) => element(own.length > 1 ? "div.samples-row" : "div",
      element("h4", where, (own[0].answer.stage === "gate" || place.decision === OPEN) && place.decision
        && badge(place.decision, place.decision.split(" ")[0])),
      element("div.samples-cards", ...own.map((one) => card(one, one === row)))))));
  open.hidden = false;
  $("panes").classList.add("samples-is-open");
  opened = row;
  if (found.includes(row)) current = found.indexOf(row);
  if (current >= 0 && !linkOf(current)) showPage(Math.floor(current / PAGE));
  markCurrent();
  highlight();
  if (still) return;
  open.focus({ preventScroll: true });
  const { top } = open.getBoundingClientRect();
  if (top < 0 || top > innerHeight / 2) open.scrollIntoView(AT_ONCE);
  $("chosen").scrollIntoView({ ...AT_ONCE, block: "nearest" });
  const box = linkOf(current)?.parentElement; // scrollIntoView would move the page as well
  if (box) list.scrollTop = Math.min(Math.max(list.scrollTop, box.offsetTop + box.offsetHeight - list.clientHeight), box.offsetTop);
}

function hide() {
  open.hidden = true;
  open.replaceChildren();
  $("panes").classList.remove("samples-is-open");
  opened = null;
  markCurrent();
}

function shut() {
  hide();
  location.hash = "samples";
  (linkOf(Math.max(current, page * PAGE)) ?? form.elements.text).focus();
}

function follow(event) { // what the address says, is shown
  const asked = /^#sample=(.*)/.exec(location.hash)?.[1];
  if (asked === undefined) return void (opened && hide());
  const name = attempt(() => decodeURIComponent(asked)) ?? asked; // a stray % is an error
  const row = byKey.get(name) ?? byId.get(name);
  if (row) return void show(row, !event && reloaded);
  if (opened) hide();
  count.textContent = `${visible(name)} is not among the answers of this page.`;
  count.scrollIntoView(AT_ONCE);
}

// --- marks on the words that were searched for, where the browser can set them without elements

function highlight() {
  if (!CSS.highlights) return;
  const marks = new Highlight();
  for (const root of words.length ? [list, open] : []) {
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const text = node.data.toLowerCase();
      if (text.length !== node.data.length) continue; // places would not be those of the node
      for (const word of words) {
        for (let at = text.indexOf(word), end; at >= 0; at = text.indexOf(word, end)) {
          end = at + word.length;
          marks.add(new StaticRange({ startContainer: node, startOffset: at, endContainer: node, endOffset: end }));
        }
      }
    }
  }
  CSS.highlights.set("samples", marks);
}

// --- keys

const keysOn = $("keys-on"), search = form.elements.text;
keysOn.checked = attempt(() => localStorage.getItem("samples-keys")) !== "off";
keysOn.onchange = () => attempt(() => localStorage.setItem("samples-keys", keysOn.checked ? "on" : "off"));
const KEYS = { j: () => move(1), k: () => move(-1), "/": () => search.focus(), "?": () => help.showModal() };

document.addEventListener("keydown", (event) => {
  const { key, target } = event;
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing || help.open) return;
  const typing = target.matches("input, select, textarea"), ours = form.contains(target);
  if (key === "Escape" && opened && !typing) shut();
  else if ((key === "Escape" && typing && ours) || (key === "Enter" && target === search)) {
    (linkOf(Math.max(current, page * PAGE)) ?? $("keys")).focus();
  } else if (!typing && keysOn.checked && KEYS[key]) KEYS[key]();
  else return;
  event.preventDefault(); // Escape would erase the words, `/` be written into the field
});

form.onsubmit = (event) => event.preventDefault();
form.oninput = filter;
form.onreset = () => setTimeout(filter); // the fields are reset after the event
$("keys").onclick = KEYS["?"];
const turn = (pages) => () => { showPage(page + pages); linkOf(page * PAGE).focus(); };
$("back").onclick = turn(-1);
$("on").onclick = turn(1);
addEventListener("hashchange", follow);

const stages = new Set(rows.map((row) => row.answer.stage));
fill("run", [...new Set(places.map((place) => place.run))].map((run) => [run, run]));
fill("round", [...new Map(places.map((place) => [place.name, place.label]))]);
fill("stage", Object.entries(STAGES).filter(([stage]) => stages.has(stage)));
fill("outcome", [...new Set(rows.map((row) => row.answer.failure))].filter(Boolean).sort().map((kind) => [kind, kind]));
fill("tag", tagPairs.map(([tag, value], i) => [i, `${tag}: ${value}`]));
$("scope").textContent = all.answers < all.all_answers
  ? `${number(all.answers)} of ${many(all.all_answers, "answer")}, to ${number(tasks.length)} of ${many(all.all_tasks, "task")}: `
    + "a random sample with tasks of every outcome. Shares in it are not those of the run."
  : `All ${many(all.answers, "answer")} to ${many(tasks.length, "task")}.`;
if (reloaded) { // as while a run goes on: the page is another, what is looked at is the same
  for (const [name, value] of attempt(() => JSON.parse(sessionStorage.getItem(KEPT))) ?? []) form.elements[name].value = value;
}
form.hidden = false;
filter();
follow();
})();
