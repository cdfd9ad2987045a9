package vaultsetup

import "testing"

// TestOpenBao runs the other tests with OpenBao.
func TestOpenBao(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"ApplyTwice":           TestApplyTwice,
		"ApplyAdds":            TestApplyAdds,
		"ApplyFixesPolicy":     TestApplyFixesPolicy,
		"CompareRefuses":       TestCompareRefuses,
		"KeyThatIsNotDerived":  TestKeyThatIsNotDerived,
		"PerNamespace":         TestPerNamespace,
		"Rights":               TestRights,
		"Login":                TestLogin,
		"LoginWithKubernetes":  TestLoginKubernetes,
		"PerNamespaceRefusals": TestPerNamespaceChecks,
		"PerNamespaceOther":    TestPerNamespaceKeyOfAnotherTeam,
		"PerNamespaceKeys":     TestPerNamespaceOtherKeys,
		"AuditHeaders":         TestAuditHeaders,
	} {
		t.Run(name, test)
	}
}
