package cliscript

import (
	"context"
	"net"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/secretmanager-io/secretmanager/test/testenv"
)

// vaultKey is the key of a script's own Vault among the values of its environment.
type vaultKey struct{}

// own returns the Vault of own-vault.
func own(ts *testscript.TestScript) *testenv.Vault {
	v, ok := ts.Value(vaultKey{}).(**testenv.Vault)
	if !ok || *v == nil {
		ts.Fatalf("the script has no Vault of its own: own-vault starts one")
	}
	return *v
}

// own-vault [openbao] starts a Vault that only this script uses, with a derived transit key $KEY, and sets $VAULT_ADDR
// and $VAULT_TOKEN.
func (s *Scripts) ownVault(ts *testscript.TestScript, neg bool, args []string) {
	bao := len(args) == 1 && args[0] == "openbao"
	Need(ts, neg, len(args) == 0 || bao, "own-vault [openbao]")
	ctx := context.Background() // until the end of the script, and not of the test
	v, err := testenv.StartVault(ctx, testenv.VaultOptions{OpenBao: bao})
	ts.Check(err)
	ts.Defer(func() {
		v.Kill() // it may be frozen
		v.Stop()
	})
	_, err = v.Write(ctx, "transit/keys/"+ts.Getenv("KEY"), map[string]any{"derived": true})
	ts.Check(err)
	*ts.Value(vaultKey{}).(**testenv.Vault) = v
	ts.Setenv("VAULT_ADDR", v.Address)
	ts.Setenv("VAULT_TOKEN", v.RootToken)
}

// freeze suspends the Vault of own-vault until thaw: it accepts connections, and responds to nothing.
func freeze(ts *testscript.TestScript, neg bool, args []string) {
	Need(ts, neg, len(args) == 0, "freeze")
	ts.Check(own(ts).Freeze())
}

func thaw(ts *testscript.TestScript, neg bool, args []string) {
	Need(ts, neg, len(args) == 0, "thaw")
	ts.Check(own(ts).Thaw())
}

// silent VARIABLE starts a server that accepts connections and never responds, and sets the variable to its host and
// port.
func silent(ts *testscript.TestScript, neg bool, args []string) {
	Need(ts, neg, len(args) == 1, "silent VARIABLE")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close() // until the listener is closed
		}
	}()
	ts.Setenv(args[0], l.Addr().String())
}
