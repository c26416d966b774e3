/** Dark, light, or as the system says. `public/scheme.js` reads the same key before the first paint. */
import { localStorageColorSchemeManager, useMantineColorScheme, type MantineColorScheme } from '@mantine/core';

export const schemeManager = localStorageColorSchemeManager({ key: 'aether-scheme' });

export function useScheme(): [MantineColorScheme, (scheme: MantineColorScheme) => void] {
  const { colorScheme, setColorScheme } = useMantineColorScheme();
  return [colorScheme, setColorScheme];
}
