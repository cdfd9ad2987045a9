package rotator_test

import "testing"

// TestOpenBao does with an OpenBao what the other tests do with a Vault.
func TestOpenBao(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"RunRewrapsEverythingAndNothingElse": TestRunRewrapsEverythingAndNothingElse,
		"RotateOnlyWhenDue":                  TestRotateOnlyWhenDue,
		"RotateIsNotRepeated":                TestRotateIsNotRepeated,
		"KeyThatCannotBeUsed":                TestKeyThatCannotBeUsed,
		"RotatorCannotDecrypt":               TestRotatorCannotDecrypt,
		"OneBadEntryDoesNotStopTheOthers":    TestOneBadEntryDoesNotStopTheOthers,
		"Retire":                             TestRetire,
		"RetireIsRefused":                    TestRetireIsRefused,
		"RetireWithoutTheRight":              TestRetireWithoutTheRight,
		"Trim":                               TestTrim,
		"TrimIsRefused":                      TestTrimIsRefused,
		"KeyDeleted":                         TestKeyDeleted,
		"VaultRestoredFromOlderBackup":       TestVaultRestoredFromOlderBackup,
		"HeavySecrets":                       TestHeavySecrets,
	} {
		t.Run(name, test)
	}
}
