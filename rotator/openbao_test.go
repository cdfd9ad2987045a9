package rotator_test

import (
	"fmt"
	"testing"

	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

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
		"JSONLimit":                          TestJSONLimit,
	} {
		t.Run(name, test)
	}
}

// TestJSONLimit: a Secret of 1,100 entries is encrypted, rotated, rewrapped and its
// old version retired by a server that takes 1,000 JSON strings a request.
func TestJSONLimit(t *testing.T) {
	w := newWorld(t)
	address, refused := testenv.LimitJSON(t, w.vault)
	w.root = w.session(address, w.vault.RootToken)
	plain := map[string]string{}
	for i := range 1100 {
		plain[fmt.Sprint("e", i)] = fmt.Sprint(i)
	}
	w.store(w.seal(w.ns, "s", plain))
	before := refused()
	report, err := rotator.Run(t.Context(), w.root, w.kube,
		w.options(retiring(0), func(o *rotator.Options) { o.Rotate = rotator.Always }))
	if err != nil {
		t.Fatal(err)
	}
	if k := only(t, report); k.Rewrapped != len(plain) || k.LeftCount != 0 || k.Retire == nil || !k.Retire.Done {
		t.Errorf("%d rewrapped, %d left, retired: %+v", k.Rewrapped, k.LeftCount, k.Retire)
	}
	if info := w.keyInfo(); info.Latest != 2 || info.MinDecryptionVersion != 2 {
		t.Errorf("the key is at version %d, from %d on", info.Latest, info.MinDecryptionVersion)
	}
	if got := w.plain(w.ns, "s"); len(got) != len(plain) || got["e1099"] != "1099" {
		t.Errorf("%d entries came back", len(got))
	}
	if n := refused(); n != before {
		t.Errorf("%d requests of the rotator were refused", n-before)
	}
}
