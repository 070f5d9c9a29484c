// The bar of a page that shiftbench serve keeps current: it says when rows have changed, and loads
// the page again by itself where nobody has touched it for a while.
{
  const shown = document.currentScript.dataset.version;
  const EVERY_MS = 4000, UNTOUCHED_MS = 20000;
  const bar = document.createElement("aside");
  bar.className = "live";
  bar.setAttribute("role", "status");
  const text = document.createElement("span");
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "show";
  button.hidden = true;
  button.addEventListener("click", () => location.reload());
  bar.append(text, " ", button);
  document.body.append(bar);
  let touched = Date.now();
  for (const kind of ["pointerdown", "keydown", "wheel", "touchstart"]) {
    addEventListener(kind, () => { touched = Date.now(); }, { passive: true });
  }
  const say = (line, fresh) => {
    if (text.textContent !== line) text.textContent = line;
    button.hidden = !fresh;
  };
  const look = async () => {
    try {
      const answer = await fetch("state", { cache: "no-store" });
      const state = await answer.json();
      const fresh = Boolean(state.version) && state.version !== shown;
      if (fresh && Date.now() - touched > UNTOUCHED_MS) { location.reload(); return; }
      say(state.problem || (fresh ? "There are new results." : `Kept current · ${state.runs} runs`), fresh);
    } catch {
      say("The server has ended; this page stays as it is.", false);
    }
    setTimeout(look, EVERY_MS);
  };
  look();
}
