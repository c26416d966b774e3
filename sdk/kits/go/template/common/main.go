// What is called are the exports: see the packages export_aether_plugin_*.
package main

import _ "component/bindings/wit_exports"

func main() {}
