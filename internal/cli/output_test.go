package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"sigs.k8s.io/yaml"

	"github.com/secretmanager-io/secretmanager/test/hostile"
)

// Printed manifests have the same content, and cannot control a terminal or a CI system.
func TestPrintedManifestsAreHarmless(t *testing.T) {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "a", Annotations: map[string]string{
		"a": hostile.Text, "b": "x\n::error::PWNED", "c": "##[error]PWNED", "d": "\u202e", "e": "::error::PWNED",
		"f": strings.Repeat("long ::error::PWNED ", 20), "g": "fine", "h": "\\##\\",
		"i": "two\nlines\n", "k": "#", hostile.Text: "key",
	}}}
	for _, format := range []string{"yaml", "json"} {
		var out bytes.Buffer
		p := &Factory{Environment: Environment{IOStreams: genericiooptions.IOStreams{Out: &out}}}
		if err := p.PrintSecret(secret, format); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out.String()) {
			if why := hostile.Effect(strings.TrimSuffix(line, "\n")); why != "" {
				t.Errorf("%s: %s: %q", format, why, line)
			}
		}
		var again corev1.Secret
		if err := yaml.UnmarshalStrict(out.Bytes(), &again); err != nil {
			t.Fatalf("%s: %v: %q", format, err, &out)
		}
		if diff := cmp.Diff(secret.Annotations, again.Annotations); diff != "" {
			t.Errorf("%s (-want +got):\n%s\n%s", format, diff, &out)
		}
	}
	// Common Secrets are printed as kubectl prints them.
	var out bytes.Buffer
	p := &Factory{Environment: Environment{IOStreams: genericiooptions.IOStreams{Out: &out}}}
	if err := p.PrintSecret(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "a"},
		Data: map[string][]byte{"b": []byte("c")}}, "yaml"); err != nil {
		t.Fatal(err)
	}
	if want := "apiVersion: v1\ndata:\n  b: Yw==\nkind: Secret\nmetadata:\n  name: a\n"; out.String() != want {
		t.Errorf("%q", &out)
	}
}
