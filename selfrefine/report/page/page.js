// The switch between light and dark, and the reload of a page that is being rewritten. Charts and tables need no script.
"use strict";
(() => {
  const root = document.documentElement;
  const kept = {
    get: (key) => { try { return sessionStorage.getItem(key); } catch { return null; } },
    set: (key, value) => { try { sessionStorage.setItem(key, value); } catch { /* a browser that keeps nothing for files */ } },
  };
  const theme = document.getElementById("theme");
  const dark = () => (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const say = () => { theme.textContent = dark() ? "Light colours" : "Dark colours"; };
  if (kept.get("theme")) root.dataset.theme = kept.get("theme");
  theme.hidden = false;
  say();
  theme.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    kept.set("theme", root.dataset.theme);
    say();
  });

  const pause = document.getElementById("pause");
  if (pause) {
    let paused = kept.get("paused") === "yes";
    const told = () => { pause.textContent = paused ? "Follow again" : "Stop following"; };
    told();
    pause.hidden = false;
    pause.addEventListener("click", () => { paused = !paused; kept.set("paused", paused ? "yes" : "no"); told(); });
    // Not while somebody types or marks text: a reload would take it away.
    const busy = () => document.activeElement?.matches("input, select, textarea") || String(getSelection());
    setInterval(() => { if (!paused && !document.hidden && !busy()) location.reload(); }, 1000 * Number(pause.dataset.seconds));
  }
})();
