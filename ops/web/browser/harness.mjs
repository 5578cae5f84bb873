// What the browser tests share: the settings that the Go test hands over, ops, Chromium, and what is watched over all
// tests.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

export const settings = JSON.parse(process.env.BROWSER_SETTINGS);
const modules = createRequire(settings.modules + '/');
const { chromium } = modules('playwright-core');
const axe = fs.readFileSync(modules.resolve('axe-core/axe.min.js'), 'utf8');

export const laptop = { width: 1366, height: 768 };
export const phone = { width: 390, height: 844 };

// Every request that a page made, and everything that went wrong in one without a test noticing.
export const requests = [];
export const faults = [];

// ui starts "ops ui" with more flags and returns its process and address.
export async function ui(...flags) {
  const child = spawn('ops', ['--stack', 'local', 'ui', ...flags], { cwd: settings.dir,
    stdio: ['ignore', 'pipe', 'inherit'] });
  child.unref(); // a test that fails early must not leave it behind, nor wait for it
  process.on('exit', () => child.kill('SIGINT'));
  // Read to its end: where nobody reads what it prints after its address, that would end it.
  let out = '';
  const address = await new Promise((resolve, reject) => {
    child.stdout.setEncoding('utf8').on('data', text => {
      out += text;
      const found = out.match(/http:\S+(?=\s)/);
      if (found) resolve(found[0]);
    });
    child.once('exit', () => reject(new Error(`ops ui ended: ${out}`)));
  });
  child.stdout.unref();
  return { address, origin: new URL(address).origin, stop: () => ended(child) };
}

async function ended(child) {
  if (child.exitCode !== null || child.signalCode !== null) { // a test that waited for it would never end
    throw new Error(`ops ui has ended by itself: status ${child.exitCode}, ${child.signalCode}`);
  }
  const end = new Promise(resolve => child.once('exit', resolve));
  child.kill('SIGINT');
  await end;
}

// launch starts Chromium. No name but rebind.test leads anywhere, and that to this machine.
export function launch() {
  return chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox',
    '--host-resolver-rules=MAP rebind.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost'] });
}

// open returns a page of its own session that has entered with the address that ops printed.
export async function open(browser, address, options = {}) {
  const context = await browser.newContext({ viewport: laptop, ...options });
  watch(context, options.expected);
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  if (address) await page.goto(address);
  return page;
}

// watch records a session's requests and its pages' faults, but for expected ones.
export function watch(context, expected = /^$/) {
  context.on('request', r => requests.push(r.url()));
  context.on('page', page => page.on('websocket', s => requests.push(s.url())));
  context.on('weberror', e => faults.push(`${e.page()?.url()}: ${e.error().stack}`));
  context.on('console', m => {
    if (m.type() === 'error' && !expected.test(m.text())) faults.push(`${m.page()?.url()}: ${m.text()}`);
  });
}

// serious returns the serious and critical violations that axe-core finds on a page, of some rules or of all.
export async function serious(page, rules) {
  if (!await page.evaluate('window.axe')) await page.evaluate(axe);
  const { violations } = await page.evaluate(runOnly => window.axe.run(document,
    { resultTypes: ['violations'], runOnly }), rules);
  return violations.filter(v => v.impact === 'serious' || v.impact === 'critical')
    .map(v => `${v.id}: ${v.help}: ${v.nodes.slice(0, 3).map(n => `${n.html} ${n.failureSummary}`).join(' | ')}`);
}

// unreached are the controls of a page that the Tab key does not reach, or whose focus is not seen. Tiles of the grid
// are reached with the arrow keys.
export async function unreached(page) {
  const wanted = await page.evaluate(() => {
    document.activeElement.blur();
    const all = [...document.querySelectorAll(
      'a, button, input, select, textarea, summary, video[controls], [tabindex="0"]')];
    return all.filter(e => !e.disabled && e.type !== 'hidden' && e.checkVisibility({ visibilityProperty: true }))
      .filter(e => !e.closest('#tiles'))
      .filter((e, i, list) => e.type !== 'radio' || e.checked || !list.some(o => o.name === e.name && o.checked))
      .map((e, i) => { e.dataset.wanted = i; return e.outerHTML.slice(0, 120); });
  });
  const reached = new Set(), unseen = [];
  for (let i = 0; i < wanted.length * 2 + 40; i++) { // a video's own controls are some more
    await page.keyboard.press('Tab');
    const { at, seen } = await page.evaluate(() => {
      const e = document.activeElement;
      const seen = e.tagName === 'VIDEO' || // whose controls are Chromium's own
        getComputedStyle(e).outlineStyle !== 'none' ||
        getComputedStyle(e, '::after').borderTopStyle === 'solid';
      return { at: e.dataset.wanted, seen };
    });
    if (at === '0' && reached.has('0')) break;
    if (at && !seen) unseen.push(`the focus is not seen: ${wanted[at]}`);
    if (at) reached.add(at);
  }
  const missed = wanted.filter((_, n) => !reached.has(String(n)));
  return [...unseen, ...missed.map(control => `Tab does not reach ${control}`)];
}

// tabTo presses Tab until a control has the focus.
export async function tabTo(page, selector, key = 'Tab') {
  for (let i = 0; i < 200; i++) {
    await page.keyboard.press(key);
    if (await page.evaluate(s => document.activeElement.matches(s), selector)) return;
  }
  throw new Error(`${key} does not reach ${selector}`);
}

// shot keeps a screenshot as an artifact of the test.
export function shot(page, name, options = {}) {
  return page.screenshot({ path: path.join(settings.artifacts, `${name}.png`), ...options });
}

// run runs a command line as a user would, in the folder of the stack, and returns what it prints.
export function run(command) {
  const { status, stdout, stderr } = spawnSync('sh', ['-c', command], { cwd: settings.dir, encoding: 'utf8' });
  if (status !== 0) throw new Error(`${command}: exit status ${status}: ${stdout}${stderr}`);
  return stdout + stderr;
}

// hashes are the SHA-256 of all objects below a prefix of the bucket, by their key.
export function hashes(prefix = '') {
  const list = {};
  const root = path.join(settings.bucket, prefix);
  for (const entry of fs.readdirSync(root, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const file = path.join(entry.parentPath, entry.name);
    list[path.relative(settings.bucket, file)] = createHash('sha256').update(fs.readFileSync(file)).digest('hex');
  }
  return list;
}

// changed are the keys that differ between two of them.
export function changed(before, after) {
  return [...new Set([...Object.keys(before), ...Object.keys(after)])].filter(key => before[key] !== after[key]).sort();
}

// until waits until something is true and returns it.
export async function until(what, check, seconds = 60) {
  for (const limit = Date.now() + seconds * 1000; ; await sleep(100)) {
    const value = await check();
    if (value) return value;
    if (Date.now() > limit) throw new Error(`after ${seconds} s still not: ${what}`);
  }
}
