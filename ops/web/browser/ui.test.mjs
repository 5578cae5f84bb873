// The pages of ops ui, used as people use them.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { changed, faults, hashes, laptop, launch, open, phone, requests, run, serious, settings, shot, tabTo, ui,
  unreached, until } from './harness.mjs';

const { mp4v, failing, long, longDataset, hostile } = settings;

let browser, server, page;
before(async () => {
  [browser, server] = await Promise.all([launch(), ui()]);
  page = await open(browser, server.address);
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

const go = path => page.goto(server.origin + path);
// hasFocus waits until the tile of a sample has the focus.
const hasFocus = (generator, index) => page.waitForFunction(
  name => document.activeElement.closest('li')?.dataset.sample === name, `${generator}:${index}`);
const tile = (generator, index) => page.locator(`li[data-sample="${generator}:${index}"]`);
const inLong = path => `${path}${path.includes('?') ? '&' : '?'}dataset=${longDataset}`;

// settled waits until a page has loaded what is seen of it.
async function settled(page) {
  await page.waitForFunction(() => [...document.images].every(i => i.complete || i.loading === 'lazy') &&
    !document.querySelector('#tiles li:not([data-sample])'));
}

// examine fails if a page, as it is now, is not for everybody: axe-core finds serious faults, something is too wide, or
// the keyboard does not reach all.
async function examine(page, name) {
  const problems = [];
  for (const [device, viewport] of Object.entries({ laptop, phone })) {
    await page.setViewportSize(viewport);
    for (const colorScheme of ['light', 'dark']) { // which changes colours only
      await page.emulateMedia({ colorScheme });
      const rules = colorScheme === 'dark' ? ['color-contrast'] : undefined;
      for (const found of await serious(page, rules)) problems.push(`${device}, ${colorScheme}: ${found}`);
      await shot(page, `${name}-${device}-${colorScheme}`.replaceAll(' ', '-'), { fullPage: device === 'phone' });
    }
    const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    if (wide > 0) problems.push(`${device}: ${wide} pixels wider than the window`);
  }
  await page.setViewportSize(laptop);
  await page.emulateMedia({ colorScheme: 'light' });
  problems.push(...await unreached(page));
  assert.deepEqual(problems, [], name);
}

// plays waits until a video shows frames that move on.
async function plays(video) {
  await video.evaluate(v => v.play());
  const state = () => video.evaluate(v => ({ ready: v.readyState, at: v.currentTime, width: v.videoWidth,
    error: v.error?.message }));
  const first = await until('the video can be played', async () => {
    const s = await state();
    assert.equal(s.error, undefined);
    return s.ready >= 2 && s;
  });
  assert.ok(first.width > 0);
  await until('its time advances', async () => (await state()).at > first.at + 0.1);
}

test('the grid scrolls and jumps to sample 9,000 of 10,000, and loads only what is seen', async () => {
  await go(inLong('/samples'));
  await tile(long, 0).waitFor();
  const before = requests.length;
  await page.locator('#grid').evaluate(e => { e.scrollTop = e.scrollHeight * 0.9 - e.clientHeight / 2; });
  await tile(long, hostile).waitFor();
  assert.ok(await tile(long, hostile).evaluate(e => {
    const [a, b] = [e.getBoundingClientRect(), e.closest('#grid').getBoundingClientRect()];
    return a.top < b.bottom && a.bottom > b.top;
  }), 'it is not seen');
  assert.ok(await page.locator('#tiles li').count() < 200);
  assert.ok(requests.slice(before).filter(r => r.includes('/api/samples')).length <= 4);
  for (const index of [5, hostile, 9_999]) {
    await page.fill('#jump-index', String(index));
    await page.press('#jump-index', 'Enter');
    await hasFocus(long, index);
    await tile(long, index).locator('img').evaluate(i => i.decode());
    assert.ok(await tile(long, index).evaluate(e => {
      const r = e.getBoundingClientRect();
      return r.top >= 0 && r.bottom <= innerHeight;
    }), `${index} is not in the window`);
  }
  await page.fill('#jump-index', String(hostile));
  await page.press('#jump-index', 'Enter');
  await tile(long, hostile).locator('video').waitFor();
  await shot(page, 'grid');
});

test('a video of each generator plays', async () => {
  assert.equal(await page.evaluate(() => document.createElement('video').canPlayType('video/mp4; codecs="mp4v.20.8"')),
    '', 'Chromium plays MPEG-4 part 2 itself: this test needs another codec');
  for (const [generator, index, query, encoded] of [[mp4v, 0, '', true], [failing, 0, '', false],
    [long, hostile, `?dataset=${longDataset}`, true]]) {
    await go(`/sample/${generator}/${index}${query}`);
    await plays(page.locator('video'));
    assert.equal(await page.getByText('re-encoded').count() > 0, encoded, `${generator} says that it is re-encoded`);
    await page.waitForFunction(() => document.querySelector('#differs')?.textContent !== '');
    await shot(page, `sample-${generator}`, { fullPage: true });
  }
  await go(`/samples?generator=${mp4v}`);
  await tile(mp4v, 1).hover();
  await plays(tile(mp4v, 1).locator('video'));
});

test('the strip of a tile that is left or removed ends, and says nothing', async () => {
  await go('/samples');
  const failed = await page.evaluate(async () => {
    const { preview, still } = await import('/static/preview.js');
    const failed = [];
    const noPicture = '/static/preview.js';
    const timers = new Set(), { setInterval, clearInterval } = window;
    window.setInterval = (...of) => { const id = setInterval(...of); timers.add(id); return id; };
    window.clearInterval = id => { timers.delete(id); clearInterval(id); };
    const start = name => {
      const frame = document.body.appendChild(document.createElement('span'));
      preview(frame, { strip: [`${noPicture}?${name}`], seconds: 0.1 }, () => failed.push(name));
      return frame;
    };
    still(start('left'));
    start('removed').remove();
    start('there');
    for (const until = Date.now() + 10_000; (timers.size || !failed.length) && Date.now() < until;) {
      await new Promise(resolve => setTimeout(resolve, 20));
    }
    Object.assign(window, { setInterval, clearInterval });
    return [...failed, timers.size];
  });
  assert.deepEqual(failed, ['there', 0]);
});

test('frames step, and the neighbours are a key press away', async () => {
  await go(`/sample/${failing}/0`);
  await page.waitForFunction(() => document.querySelector('video').readyState >= 2);
  await page.keyboard.press('.');
  await page.keyboard.press('.');
  await page.getByText('frame 3 of').waitFor();
  await page.keyboard.press(',');
  await page.getByText('frame 2 of').waitFor();
  await page.keyboard.press('ArrowRight');
  await page.waitForURL(`**/sample/${failing}/1`);
  await page.keyboard.press('ArrowLeft');
  await page.waitForURL(`**/sample/${failing}/0`);
});

test('a link that is sent shows the same in another session', async () => {
  await go('/samples?sort=-size&hint=unplayable'); // those of one generator
  await page.getByText(`${settings.samples} samples`).waitFor();
  await page.locator('#tiles a').first().click();
  await page.waitForURL(/\/sample\/.*sort=-size/);
  await page.locator('#hints').getByText('browsers do not play the video').waitFor();
  await page.locator('#slider').fill('20');
  assert.match(await page.locator('#over img').last().evaluate(e => getComputedStyle(e).clipPath), /\b20%/);
  await page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
  await page.click('#link');
  await page.getByText('copied').waitFor();
  const link = await page.evaluate(() => navigator.clipboard.readText());
  const other = await open(browser, server.address);
  await other.goto(link);
  assert.equal(await other.locator('h1').textContent(), await page.locator('h1').textContent());
  assert.equal(await other.locator('#after').getAttribute('href'), await page.locator('#after').getAttribute('href'));
  await other.keyboard.press('Escape');
  await other.getByText(`${settings.samples} samples`).waitFor();
  await other.context().close();
});

test('what generators wrote is text', async () => {
  const dialogs = [];
  page.on('dialog', d => dialogs.push(d.dismiss()));
  await go(inLong(`/sample/${long}/${hostile}`));
  for (const [name, part] of [['prompt', "<script>window.hacked = 'prompt'</script>"],
    ['rubric', '<img src=x onerror='], ['metadata', "<script>window.hacked = 'metadata'"]]) {
    assert.ok((await page.locator(`#${name}`).textContent()).includes(part), name);
  }
  assert.equal(await page.evaluate('window.hacked'), undefined);
  for (const name of ['drawing.svg', 'page.html']) { // opened as a page of this server, they would have its rights
    const link = page.getByRole('link', { name });
    const saved = page.waitForEvent('download');
    await link.click();
    await (await saved).cancel();
    const answer = await page.request.get(new URL(await link.getAttribute('href'), server.origin).href);
    assert.match(answer.headers()['content-disposition'] ?? '', /attachment/, name);
    assert.match(answer.headers()['content-security-policy'] ?? '', /default-src 'none'/, name);
  }
  const frame = await page.evaluate(async href => { // as a picture it is shown, and runs nothing
    const i = Object.assign(document.createElement('img'), { src: href });
    await i.decode().catch(() => {});
    return window.hacked;
  }, await page.getByRole('link', { name: 'drawing.svg' }).getAttribute('href'));
  assert.equal(frame, undefined);
  assert.equal(dialogs.length, 0);
});

test('with the keyboard alone: filter, flag three samples, plan their repair; it changes these three', async () => {
  const before = hashes();
  await go(inLong('/samples'));
  await tabTo(page, '#filters summary');
  await page.keyboard.press('Enter');
  await tabTo(page, 'input[name=where]');
  await page.keyboard.type('difficulty > 4');
  await page.keyboard.press('Enter');
  await page.getByText(/^2,001 samples/).waitFor(); // every fifth, and the hostile one
  await go('/samples');
  await tabTo(page, '#generator');
  await page.keyboard.type(mp4v);
  await page.waitForURL(`**/samples?generator=${mp4v}`);
  await tile(mp4v, 1).waitFor();
  await tabTo(page, '#tiles a');
  const flagged = [1, 2, 5];
  for (let index = 0; index <= 5; index++) {
    if (index > 0) await page.keyboard.press('ArrowRight');
    await hasFocus(mp4v, index);
    if (flagged.includes(index)) await page.keyboard.press('x');
  }
  await shot(page, 'selection');
  await tabTo(page, '#selection input[name=reason]', 'Shift+Tab');
  await page.keyboard.type('the <b>ball</b> jumps');
  await page.keyboard.press('Enter');
  for (const index of flagged) await tile(mp4v, index).getByText('flagged').waitFor();
  assert.equal(await page.locator('#tiles .mark').count(), 3);
  assert.equal(await page.locator('.notice code.command').textContent(),
    `ops --stack local flags add --reason 'the <b>ball</b> jumps' ${mp4v} 1 2 5`);
  await tabTo(page, 'header nav a[href^="/flags"]');
  await page.keyboard.press('Enter');
  await page.getByText('3 open').waitFor();
  assert.equal(await page.getByText('the <b>ball</b> jumps').count(), 3);
  await tabTo(page, 'form[action="/flags/plan"] button');
  await page.keyboard.press('Enter');
  const command = await page.getByText('carries it out:').locator('code.command').textContent();
  await shot(page, 'plan', { fullPage: true });
  assert.match(command, /^ops --stack local repair --plan \S+/);
  assert.deepEqual(changed(before, hashes()).map(key => key.split('/')[0]), ['flags'], 'a plan changes nothing');

  run(command);
  await until('the flags are resolved', async () => {
    await page.reload();
    return await page.getByText('3 resolved').count() > 0;
  });
  const keys = changed(before, hashes());
  const eight = index => String(index).padStart(8, '0');
  const sample = index => `data/v1/${mp4v}/maze_${eight(index)}/`;
  const data = keys.filter(key => key.startsWith('data/'));
  assert.deepEqual(data.filter(key => !flagged.some(index => key.startsWith(sample(index)))), []);
  for (const index of flagged) assert.ok(keys.includes(`${sample(index)}ground_truth.mp4`), keys.join(' '));
  // Beside them only what says so: the flags, the receipts of their cells, the repair's run and the dataset's history.
  const cells = new Set(flagged.map(index => Math.floor(index / settings.chunk) * settings.chunk));
  const others = keys.filter(key => !/^(data|flags|runs\/v1|datasets)\//.test(key));
  assert.deepEqual(others, [...cells].map(
    start => `receipts/v1/${mp4v}/${eight(start)}_${eight(start + settings.chunk - 1)}.json`));
});

test('a dead task is replayed, and its run ends before the eyes', async () => {
  await go(`/sample/${failing}/0`);
  const ofRun = await page.locator('a[href^="/run?run="]').getAttribute('href');
  await go(ofRun);
  await page.getByText('incomplete', { exact: true }).waitFor();
  await shot(page, 'run-incomplete', { fullPage: true });
  await page.getByRole('button', { name: 'Pause' }).click();
  await page.getByText('paused').waitFor();

  await go('/failures');
  await page.getByText('1 task failed for good').waitFor();
  await examine(page, 'failed tasks');
  await page.locator('tbody a[href^="/failures/task/"]').click();
  assert.match(await page.locator('#stderr').textContent(), /ValueError: no <b>puzzle<\/b> for this seed/);
  await examine(page, 'failed task');
  await page.getByRole('button', { name: 'Dry run' }).click();
  await page.getByText('1 task would be sent again; nothing was sent.').waitFor();
  await examine(page, 'dry run');
  assert.equal(JSON.parse(run('ops local status --json')).dlq.waiting, 1);
  await page.getByRole('button', { name: 'Send 1 task again' }).click();
  await page.locator('[data-end=done]').waitFor();
  assert.equal(JSON.parse(run('ops local status --json')).dlq.waiting, 0);

  await go(ofRun);
  await page.getByText('waiting in the queue').waitFor();
  assert.equal(await page.locator('[data-end]').count(), 0, 'the run has ended while nothing was delivered');
  await page.getByRole('button', { name: 'Resume' }).click();
  await page.getByText('delivering').waitFor();
  const loaded = await page.evaluate(() => window.loaded = Math.random());
  await page.locator('[data-end=complete]').waitFor({ timeout: 60_000 });
  assert.equal(await page.evaluate('window.loaded'), loaded, 'the page was not loaded again');
  await page.getByText(`${2 * settings.samples} of ${2 * settings.samples} samples`).waitFor();
  await shot(page, 'run-complete', { fullPage: true });
  run(`ops --stack local verify --run ${new URL(ofRun, server.origin).searchParams.get('run')}`);
});

// every page, as it is after the tests above: with samples, flags, runs and failures.
const pages = () => ({
  samples: '/samples', filtered: '/samples?where=difficulty+%3E+2&sort=-size', 'many samples': inLong('/samples'),
  'nothing found': '/samples?where=side+%3E+99', sample: `/sample/${mp4v}/0`,
  hostile: inLong(`/sample/${long}/${hostile}`),
  run: '/run', failures: '/failures', flags: '/flags', compare: `/compare?with=${longDataset}`, 'not found': '/nowhere',
});

test('every page, in light and dark, on a laptop and a phone', { concurrency: 2 }, async t => {
  await Promise.all(Object.entries(pages()).map(([name, path]) => t.test(name, async () => {
    const other = await open(browser, server.address, { expected: /404|400/ });
    await other.goto(server.origin + path);
    await settled(other);
    await examine(other, name);
    await other.context().close();
  })));
});

test('no page asked for anything outside of this machine, and none had an error', () => {
  assert.ok(requests.length > 100, `${requests.length} requests`);
  for (const url of requests) {
    if (/^(data|blob):/.test(url)) continue;
    assert.equal(new URL(url).hostname, '127.0.0.1', url);
  }
  assert.deepEqual(faults, []);
});
