/** Handing a download over to the peer that is installed on this machine, by the scheme of names. */

/** A browser that found a program for the scheme shows a question or the program, and the page is no longer in front. */
const LEAVES_WITHIN_MS = 1_200;

/** The frame outlives the decision: browsers that ask their user first drop the question with it. */
const FRAME_STAYS_MS = 60_000;

/**
 * Opens a `hw://` name as if it were clicked; whether somebody seems to have taken it. Browsers tell no page what schemes they
 * have a program for: that the page is no longer in front is the only sign, and no proof. To be called by a click.
 */
export async function handOver(name: string): Promise<boolean> {
  if (!document.hasFocus()) return false;
  const frame = document.createElement('iframe');
  frame.hidden = true;
  const left = new Promise<boolean>((done) => {
    const gone = () => {
      clearTimeout(timer);
      removeEventListener('blur', gone);
      document.removeEventListener('visibilitychange', gone);
      done(!document.hasFocus() || document.visibilityState === 'hidden');
    };
    addEventListener('blur', gone);
    document.addEventListener('visibilitychange', gone);
    const timer = setTimeout(gone, LEAVES_WITHIN_MS);
  });
  document.body.append(frame);
  // A frame of the page itself may not take the focus for gone.
  frame.src = name;
  setTimeout(() => frame.remove(), FRAME_STAYS_MS);
  return left;
}
