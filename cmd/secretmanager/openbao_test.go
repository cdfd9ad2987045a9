package main

import "testing"

// TestOpenBao runs the scripts with an OpenBao.
func TestOpenBao(t *testing.T) {
	t.Run("Scripts", TestScripts)
	t.Run("AuditHeaderScripts", TestAuditHeaderScripts)
}
