package options

import (
	"testing"

	"github.com/spf13/pflag"
)

func TestPathVar(t *testing.T) {
	for text, want := range map[string]string{
		"kubernetes": "kubernetes", "kubernetes/": "kubernetes", "/team/jwt/": "team/jwt", " a ": "a", "/": "", "": "",
	} {
		f := pflag.NewFlagSet("test", pflag.ContinueOnError)
		var set, byDefault string
		PathVar(f, &set, "set", "other", "")
		PathVar(f, &byDefault, "default", text, "")
		if err := f.Parse([]string{"--set=" + text}); err != nil {
			t.Fatal(err)
		}
		if set != want || byDefault != want {
			t.Errorf("%q: %q, and as the default %q, want %q", text, set, byDefault, want)
		}
	}
}
