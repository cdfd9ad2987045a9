package main

import "testing"

// TestOpenBao runs the scripts and other tests with an OpenBao.
func TestOpenBao(t *testing.T) {
	t.Run("Scripts", TestScripts)
	t.Run("AuditHeaderScripts", TestAuditHeaderScripts)
	t.Run("TrimError", TestTrimError)
	t.Run("TrimIsPermanent", TestTrimIsPermanent)
}
