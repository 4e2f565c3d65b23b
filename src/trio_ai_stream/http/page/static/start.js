// Runs before the modules, and hears if one of them does not come. A browser drops what it loads while its network changes
// (another Wi-Fi, a VPN), and does not ask again: the page would be at "connecting" for ever.

const LOADED = "trio-ai-stream loaded again";
const AGAIN_MS = 10_000;

/** Whether to load the page anew: not if that was tried just now, or nobody could remember that it was. */
function mayLoadAgain() {
  try {
    const before = Number(sessionStorage.getItem(LOADED));
    sessionStorage.setItem(LOADED, Date.now());
    return Date.now() - before > AGAIN_MS;
  } catch {
    return false;
  }
}

addEventListener(
  "error",
  ({ target }) => {
    if (!(target instanceof HTMLScriptElement)) return;
    if (mayLoadAgain()) return location.reload();
    const note = document.createElement("p");
    note.setAttribute("role", "alert");
    note.textContent = "A part of this page did not come. Load it again.";
    document.body.prepend(note);
  },
  true,
);
