package rotator_test

import (
	"fmt"
	"testing"

	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

// TestOpenBao repeats other tests with OpenBao in place of Vault.
func TestOpenBao(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"RunRewrapsAllEntries":         TestRunRewrapsAllEntries,
		"RotateOnlyWhenDue":            TestRotateOnlyWhenDue,
		"RotateNotRepeated":            TestRotateNotRepeated,
		"UnusableKey":                  TestUnusableKey,
		"RotatorCannotDecrypt":         TestRotatorCannotDecrypt,
		"BadEntryDoesNotStopOthers":    TestBadEntryDoesNotStopOthers,
		"Retire":                       TestRetire,
		"RetireBlocked":                TestRetireBlocked,
		"RetireDenied":                 TestRetireDenied,
		"RetireMissing":                TestRetireMissing,
		"SearchContinues":              TestSearchContinues,
		"GarbageIsNotWritten":          TestGarbageIsNotWritten,
		"KeyDeleted":                   TestKeyDeleted,
		"VaultRestoredFromOlderBackup": TestVaultRestoredFromOlderBackup,
		"JSONLimit":                    TestJSONLimit,
	} {
		t.Run(name, test)
	}
}

// TestJSONLimit rotates a Secret with 1,100 entries with a server that accepts 1,000 JSON
// strings in a request, and retires its old version.
func TestJSONLimit(t *testing.T) {
	f := newFixture(t)
	address, refused := testenv.LimitJSON(t, f.Vault)
	f.Root = f.Session(address, f.Vault.RootToken)
	plain := map[string]string{}
	for i := range 1100 {
		plain[fmt.Sprint("e", i)] = fmt.Sprint(i)
	}
	f.CreateSecret(f.encrypt(f.Namespace, "s", plain))
	before := refused()
	report, err := rotator.Run(t.Context(), f.Root, f.Kube,
		f.options(retiring(0), func(o *rotator.Options) { o.Rotate = rotator.Always }))
	if err != nil {
		t.Fatal(err)
	}
	if k := onlyKey(t, report); k.Rewrapped != len(plain) || k.Unresolved.Count != 0 || k.Retire == nil || !k.Retire.Done {
		t.Errorf("%d rewrapped, %d unresolved, retire: %+v", k.Rewrapped, k.Unresolved.Count, k.Retire)
	}
	if info := f.KeyInfo(); info.Latest != 2 || info.MinDecryptionVersion != 2 {
		t.Errorf("the key has version %d and min_decryption_version %d", info.Latest, info.MinDecryptionVersion)
	}
	if got := f.plain(f.Namespace, "s"); len(got) != len(plain) || got["e1099"] != "1099" {
		t.Errorf("%d entries", len(got))
	}
	if n := refused(); n != before {
		t.Errorf("%d requests of the rotator were rejected", n-before)
	}
}
