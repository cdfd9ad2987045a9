package rotator_test

import (
	"fmt"
	"testing"

	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

// contract has the tests that run in memory and are repeated on real servers. The value says whether that is
// so in make test too, or only in make test-long.
var contract = map[string]contractTest{
	"RunRewrapsAllEntries":         {TestRunRewrapsAllEntries, true},
	"BadEntryDoesNotStopOthers":    {TestBadEntryDoesNotStopOthers, true},
	"Retire":                       {TestRetire, true},
	"SearchContinues":              {TestSearchContinues, true},
	"KeyDeleted":                   {TestKeyDeleted, true},
	"VaultRestoredFromOlderBackup": {TestVaultRestoredFromOlderBackup, true},
	"ConcurrentWriter":             {TestConcurrentWriter, true},
	"RotateOnlyWhenDue":            {TestRotateOnlyWhenDue, false},
	"RetireBlocked":                {TestRetireBlocked, false},
	"RetireMissing":                {TestRetireMissing, false},
	"RetireWithDailyRotation":      {TestRetireWithDailyRotation, false},
	"RestoredKeyIsLeftAlone":       {TestRestoredKeyIsLeftAlone, false},
	"ManyEntries":                  {TestManyEntries, false},
	"KilledAtEachStep":             {TestKilledAtEachStep, false},
}

type contractTest struct {
	test   func(*testing.T)
	always bool
}

// TestContract repeats tests on a real Vault and a real API server.
func TestContract(t *testing.T) {
	for name, c := range contract {
		if c.always || long() {
			t.Run(name, c.test)
		}
	}
}

// TestOpenBao is TestContract with OpenBao in place of Vault, with the other tests in which it might differ.
func TestOpenBao(t *testing.T) {
	TestContract(t)
	t.Run("GarbageIsNotWritten", TestGarbageIsNotWritten)
	t.Run("JSONLimit", TestJSONLimit)
	if long() {
		t.Run("RotateNotRepeated", TestRotateNotRepeated)
		t.Run("UnusableKey", TestUnusableKey)
		t.Run("RotatorCannotDecrypt", TestRotatorCannotDecrypt)
		t.Run("RetireDenied", TestRetireDenied)
	}
}

// TestJSONLimit rotates a Secret with 1,100 entries with a server that accepts 1,000 JSON
// strings in a request, and retires its old version.
func TestJSONLimit(t *testing.T) {
	f := newServerFixture(t)
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
