package vaultsetup

import "testing"

// TestOpenBao does with an OpenBao what the other tests do with a Vault.
func TestOpenBao(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"ApplyTwice":           TestApplyTwice,
		"ApplyAdds":            TestApplyAdds,
		"ApplyMendsPolicy":     TestApplyMendsPolicy,
		"CompareRefuses":       TestCompareRefuses,
		"KeyThatIsNotDerived":  TestKeyThatIsNotDerived,
		"PerNamespace":         TestPerNamespace,
		"Rights":               TestRights,
		"Login":                TestLogin,
		"LoginWithKubernetes":  TestLoginKubernetes,
		"PerNamespaceRefusals": TestPerNamespaceChecks,
		"PerNamespaceOther":    TestPerNamespaceOfAnotherTeamsKey,
		"PerNamespaceKeys":     TestPerNamespaceOtherKeys,
		"AuditHeaders":         TestAuditHeaders,
	} {
		t.Run(name, test)
	}
}
