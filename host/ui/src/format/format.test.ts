import { describe, expect, test } from 'vitest';
import { age, countdown, duration, localTime, utcTime } from './time';
import { bytes, compact, count, percent, plain, quantity, short, tick } from './units';

const NOON = new Date(2026, 10, 21, 12, 0, 0).getTime();

describe('times', () => {
  test('a duration has at most two units', () => {
    expect([0, 850, 1_340, 12_900, 200_000, 180_000, 7_500_000, 97_200_000].map(duration)).toEqual([
      '0 ms',
      '850 ms',
      '1.3 s',
      '12 s',
      '3 min 20 s',
      '3 min',
      '2 h 5 min',
      '1 d 3 h',
    ]);
  });

  test('an age is in whole units, and never in the future', () => {
    expect([0, -5_000, 1_600, 59_999, 61_000, 3_700_000, 200_000_000].map((ms) => age(NOON - ms, NOON))).toEqual([
      'just now',
      'just now',
      '1 s ago',
      '59 s ago',
      '1 min ago',
      '1 h ago',
      '2 d ago',
    ]);
  });

  test('a countdown ends at zero and shows the last second to its end', () => {
    expect([900_000, 59_001, 1, 0, -10_000, 3_723_000].map((ms) => countdown(NOON + ms, NOON))).toEqual([
      '15:00',
      '1:00',
      '0:01',
      '0:00',
      '0:00',
      '1:02:03',
    ]);
  });

  test('another day is named, today is not', () => {
    expect(localTime(NOON, NOON)).toMatch(/^12:00:00$/);
    expect(localTime(NOON - 86_400_000, NOON)).toMatch(/20.*12:00:00/);
    expect(localTime(NOON - 400 * 86_400_000, NOON)).toMatch(/2025/);
    expect(utcTime(0)).toBe('1970-01-01 00:00:00.000 UTC');
  });
});

describe('units', () => {
  test('bytes are counted in powers of two', () => {
    expect([0, 512, 1024, 10_820_000, 3.2e9, -2048].map(bytes)).toEqual(['0 B', '512 B', '1 KiB', '10.3 MiB', '2.98 GiB', '−2 KiB']);
  });

  test('numbers have as many digits as help', () => {
    expect([0, 3, 0.0345, 12.34, 123.4, 1_204_551, Number.NaN].map(plain)).toEqual(['0', '3', '0.0345', '12.3', '123', '1,204,551', '—']);
    expect([999, 41_208, 50_000_000, 2.5e9].map(compact)).toEqual(['999', '41.2 k', '50 M', '2.5 G']);
    expect([0, 0.00716, 0.021, 0.5, 1].map(percent)).toEqual(['0 %', '0.7 %', '2.1 %', '50 %', '100 %']);
  });

  test('what was not sampled is not zero', () => {
    expect([null, undefined, Number.NaN].map((value) => quantity(value, '1'))).toEqual(['—', '—', '—']);
    expect(quantity(0, '1')).toBe('0 %');
  });

  test('units are said as people say them', () => {
    expect(quantity(4.97, '{step}/s')).toBe('4.97 steps/s');
    expect(quantity(3.12, '{USD}/h')).toBe('$3.120/h');
    expect(quantity(2048, 'By/s')).toBe('2 KiB/s');
    expect(quantity(90, 's')).toBe('1 min 30 s');
    expect(quantity(3, '{batch}')).toBe('3 batches');
    expect(quantity(1, '')).toBe('1');
    expect([tick(0.5, '1'), tick(262_144, 'By/s'), tick(2.5, '{USD}/h'), tick(23_000, '')]).toEqual(['50%', '256K', '$2.5', '23k']);
  });

  test('one is one', () => {
    expect([count(0, 'node'), count(1, 'node'), count(2, 'entry', 'entries')]).toEqual(['0 nodes', '1 node', '2 entries']);
    expect(short('0123456789abcdef')).toBe('0123456789ab');
  });
});
