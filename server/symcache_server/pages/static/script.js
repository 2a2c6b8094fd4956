"use strict";
// Improves what works without it: suggestions, filters as one types, copying, dropped files. Nothing is fetched but from here.

const later = (wait, action) => {
  let timer = 0;
  return (...values) => { clearTimeout(timer); timer = setTimeout(action, wait, ...values); };
};

// Whatever the pages tell comes as text, never as markup.
const element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};

// Copy buttons beside commands.
const addCopiers = () => {
  if (!navigator.clipboard) return;
  for (const code of document.querySelectorAll("[data-copy]")) {
    const label = code.dataset.label || "Copy";
    const button = element("button", { type: "button", class: "copier" }, label);
    if (!code.dataset.label) button.setAttribute("aria-label", `Copy ${code.textContent}`);
    button.addEventListener("click", async () => {
      const source = code.dataset.copy ? document.getElementById(code.dataset.copy) : code;
      await navigator.clipboard.writeText(source.textContent);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = label; }, 1500);
    });
    code.after(button);
  }
};

// Forms that filter a part of their page: it is taken from the page that the form leads to.
const addFilter = (form) => {
  let newest = 0;
  const update = later(120, async () => {
    const number = ++newest;
    const query = new URLSearchParams(new FormData(form));
    const response = await fetch(`?${query}`);
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const fresh = page.getElementById(form.dataset.live);
    if (number !== newest || !fresh) return;
    document.getElementById(form.dataset.live).replaceChildren(...fresh.childNodes);
    history.replaceState(null, "", `?${query}`);
  });
  form.addEventListener("input", update);
};

// Suggestions below a search box, as a listbox that the arrow keys walk through.
const addSuggestions = (box) => {
  const list = element("ul", { class: "suggestions", id: `${box.id}-list`, role: "listbox", "aria-label": "Suggestions" });
  list.hidden = true;
  box.after(list);
  for (const [name, value] of [["role", "combobox"], ["aria-expanded", "false"], ["aria-controls", list.id], ["aria-autocomplete", "list"]]) box.setAttribute(name, value);
  let chosen = -1, newest = 0;
  const hide = () => { newest++; list.hidden = true; box.setAttribute("aria-expanded", "false"); box.removeAttribute("aria-activedescendant"); chosen = -1; };
  const choose = (number) => {
    const items = [...list.children];
    items.forEach((item, n) => item.setAttribute("aria-selected", String(n === number)));
    chosen = number;
    if (items[number]) { box.setAttribute("aria-activedescendant", items[number].id); items[number].scrollIntoView({ block: "nearest" }); }
    else box.removeAttribute("aria-activedescendant");
  };
  const show = (found) => {
    const rows = [
      ...found.releases.slice(0, 5).map((r) => [r.title, `${r.build}, ${r.state}`, r.link]),
      ...found.uuids.slice(0, 5).map((u) => [u.path.split("/").pop() || u.uuid, u.state, u.link]),
      ...found.paths.slice(0, 8).map((p) => [p.path.split("/").pop(), `${p.path.slice(0, p.path.lastIndexOf("/"))}  ${p.builds} ${p.builds === 1 ? "build" : "builds"}`, `/search?q=${encodeURIComponent(p.path)}`]),
    ].filter((row) => row[2]);
    list.replaceChildren(...rows.map(([title, more, link], n) => {
      const item = element("li", { role: "option", id: `${list.id}-${n}`, "aria-selected": "false" }, element("b", {}, title), element("span", {}, more));
      item.addEventListener("mousedown", (event) => { event.preventDefault(); location.assign(link); });
      item.dataset.link = link;
      return item;
    }));
    list.hidden = !rows.length;
    box.setAttribute("aria-expanded", String(!list.hidden));
    chosen = -1;
  };
  const update = later(60, async () => {
    const text = box.value.trim(), number = ++newest;
    if (text.length < 2 || text.length > 300) return hide();
    const response = await fetch(`/search.json?limit=8&q=${encodeURIComponent(text)}`);
    if (response.ok && number === newest && document.activeElement === box) show(await response.json());
  });
  box.addEventListener("input", update);
  box.addEventListener("blur", hide);
  box.addEventListener("keydown", (event) => {
    const count = list.hidden ? 0 : list.children.length;
    if (event.key === "Escape") hide();
    else if (count && event.key === "ArrowDown") { event.preventDefault(); choose((chosen + 1) % count); }
    else if (count && event.key === "ArrowUp") { event.preventDefault(); choose(chosen <= 0 ? count - 1 : chosen - 1); }
    else if (event.key === "Enter" && chosen >= 0 && count) { event.preventDefault(); location.assign(list.children[chosen].dataset.link); }
  });
};

// A search box of one line would lose the line ends of what is pasted: reports go as they are.
const addPaste = (box) => {
  box.addEventListener("paste", (event) => {
    const text = event.clipboardData?.getData("text/plain") ?? "";
    if (!text.trim().includes("\n")) return;
    event.preventDefault();
    send(text);
  });
};
const send = (text) => {
  const form = element("form", { action: "/search", method: "post", hidden: "" }, element("textarea", { name: "q" }));
  form.firstChild.value = text;
  document.body.append(form);
  form.submit();
};

// A crash report may be dropped anywhere on a page that takes one.
const addDrop = (form) => {
  const stop = (event) => { if ([...event.dataTransfer.types].includes("Files")) { event.preventDefault(); form.classList.toggle("over", event.type !== "dragleave" && event.type !== "drop"); } };
  for (const type of ["dragenter", "dragover", "dragleave"]) document.addEventListener(type, stop);
  document.addEventListener("drop", async (event) => {
    stop(event);
    const file = event.dataTransfer.files[0];
    if (file) send(await file.text());
  });
};

addCopiers();
document.querySelectorAll("form[data-live]").forEach(addFilter);
document.querySelectorAll("[data-suggest]").forEach((box) => { addSuggestions(box); addPaste(box); });
document.querySelectorAll("form[data-drop]").forEach(addDrop);
