// Command vault runs the vault commands that our pages show: see package vaultcli.
package main

import "github.com/secretmanager-io/secretmanager/test/vaultcli"

func main() { vaultcli.Main() }
