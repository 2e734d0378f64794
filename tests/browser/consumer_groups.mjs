// The page of the example `consumer_groups` in a browser: what is clicked is what both groups show, also after a reload.
//
// tests/browser/run starts the service and sets URL and CHROMIUM.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { chromium } from 'playwright-core';

const url = process.env.URL;
let browser, page;
const problems = [];

before(async () => {
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox'] });
  page = await browser.newPage({ viewport: { width: 1200, height: 800 } });
  page.setDefaultTimeout(30_000);
  page.on('console', message => { if (message.type() === 'error') problems.push(message.text()); });
  page.on('pageerror', error => problems.push(String(error)));
});
after(() => browser?.close());

// The messages of a group as shown: each its offset, content and mark.
const rows = group => page.$$eval(`#group-${group} ol button`, buttons =>
  buttons.map(button => [...button.children].map(child => child.textContent)));
const count = (group, what) => page.textContent(`#group-${group} [data-count=${what}]`);
const counted = (group, what, wanted) => page.waitForFunction(
  ([selector, text]) => document.querySelector(selector)?.textContent === text,
  [`#group-${group} [data-count=${what}]`, String(wanted)]);
const acknowledge = async (group, offset) => {
  await page.click(`#group-${group} [data-offset="${offset}"]:not([disabled])`);
  await page.waitForSelector(`#group-${group} [data-offset="${offset}"].acknowledged`);
};

test('two groups acknowledge the same messages, each for itself', async () => {
  await page.goto(`${url}/ui`);
  await page.waitForSelector('#group-B');
  for (let number = 0; number < 10; number++) {
    await page.fill('#key', `key-${number % 3}`);
    await page.fill('#content', `message ${number}`);
    await page.click('text=Produce');
    await counted('A', 'received', number + 1);
  }
  await counted('B', 'received', 10);
  for (const offset of [0, 1, 2, 3, 4]) await acknowledge('A', offset);
  for (const offset of [0, 1, 2]) await acknowledge('B', offset);
  const expected = acknowledged => Array.from({ length: 10 }, (_, offset) =>
    [String(offset), `key-${offset % 3}`, `message ${offset}`, offset < acknowledged ? '✓' : '']);
  const check = async () => {
    assert.deepEqual(await rows('A'), expected(5));
    assert.deepEqual(await rows('B'), expected(3));
    for (const [group, done] of [['A', 5], ['B', 3]]) {
      await counted(group, 'committed', done);
      assert.equal(await count(group, 'acknowledged'), String(done));
      assert.equal(await count(group, 'lag'), String(10 - done));
    }
  };
  await check();
  if (process.env.SCREENSHOT) await page.screenshot({ path: process.env.SCREENSHOT, fullPage: true });
  await page.reload();
  await page.waitForSelector('#group-B [data-offset="9"]');
  await check();
  assert.equal(await page.textContent('#topic'), 'demo-topic');
  assert.equal(await page.textContent('#live'), 'live');
});

test('a reset of one group begins again at the oldest message, and the other stays', async () => {
  await page.click('#group-A .reset');
  await counted('A', 'acknowledged', 0);
  await counted('A', 'received', 10);
  assert.equal(await count('B', 'acknowledged'), '3');
});

test('the API page describes every path and sends requests', async () => {
  await page.goto(`${url}/docs`);
  await page.waitForSelector('details');
  const paths = await page.$$eval('details summary code', codes => codes.map(code => code.textContent));
  assert.deepEqual(paths, ['/', '/produce', '/consumers/status', '/consumers/{group}/acknowledge', '/consumers/reset', '/events']);
  await page.click('details:has-text("/consumers/status") summary');
  await page.click('details[open] button');
  await page.waitForFunction(() => document.querySelector('details[open] > .body > pre:last-child').textContent.startsWith('200'));
});

test('the pages report no errors', () => assert.deepEqual(problems, []));
