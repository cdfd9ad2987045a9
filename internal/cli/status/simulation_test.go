package status

import (
	"bytes"
	"strings"
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/secretmanager-io/secretmanager/internal/cli"
)

// What could not be searched makes the effect unknown, even if nothing was found. It is never only a finding.
func TestSimulationIncomplete(t *testing.T) {
	key := func(change func(*SimulatedKey)) *SimulatedKey {
		k := &SimulatedKey{Mount: "transit", Name: "app", MinDecryption: 1, Latest: 3, Target: 3, RetiredBelow: 3, Entries: 1,
			Verified: 1}
		change(k)
		return k
	}
	inUse := func(k *SimulatedKey) {
		k.WouldBreak = Texts{Count: 1001, Items: []Text{{Namespace: "demo", Secret: "web", Entry: "a", Version: 1}}}
	}
	for name, test := range map[string]struct {
		simulation Simulation
		code       int
		want       []string
	}{
		"nothing": {Simulation{Keys: []*SimulatedKey{key(func(*SimulatedKey) {})}, Secrets: 2}, 0,
			[]string{"transit/keys/app: nothing below version 3 in 2 Secrets still decrypts\n"}},
		"unfinished": {Simulation{Unfinished: []string{"demo"},
			Keys: []*SimulatedKey{key(func(k *SimulatedKey) { k.Incomplete = []string{"demo"} })}}, 1,
			[]string{"not finished: namespace demo has too many texts", "incomplete: transit/keys/app in namespace demo\n",
				"what would break is unknown for 1 key\n", "hint: -l secretmanager.io/transit-key=KEY limits the keys"}},
		"in use": {Simulation{Keys: []*SimulatedKey{key(inUse)}}, 3,
			[]string{"transit/keys/app: 1000 more texts are not listed\n", "error: 1001 texts would no longer decrypt\n"}},
		"in use and unfinished": {Simulation{Unfinished: []string{"demo"}, Keys: []*SimulatedKey{key(inUse),
			key(func(k *SimulatedKey) { k.Incomplete = []string{"demo"} })}}, 1,
			[]string{"error: 1001 texts would no longer decrypt\n", "what would break is unknown for 1 key\n"}},
	} {
		var stdout, stderr bytes.Buffer
		o := &Options{Factory: cli.NewFactory(cli.Environment{
			IOStreams: genericiooptions.IOStreams{Out: &stdout, ErrOut: &stderr}})}
		code := 0
		if err := o.showSimulation(&test.simulation); err != nil {
			code = cli.ReportError(&stderr, "secretmanager status", err)
		}
		if code != test.code {
			t.Errorf("%s: exit code %d, not %d: %s", name, code, test.code, stderr.String())
		}
		for _, want := range test.want {
			if !strings.Contains(stderr.String(), want) {
				t.Errorf("%s: no %q in:\n%s", name, want, stderr.String())
			}
		}
		if strings.Contains(stderr.String(), "still decrypts") != (name == "nothing") {
			t.Errorf("%s: wrong about what decrypts:\n%s", name, stderr.String())
		}
	}
}
