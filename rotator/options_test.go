package rotator_test

import (
	"strings"
	"testing"

	"github.com/secretmanager-io/secretmanager/rotator"
)

func TestOptionsValidate(t *testing.T) {
	if err := (rotator.Options{}).Validate(); err != nil {
		t.Errorf("the zero value: %v", err)
	}
	// All problems at once.
	err := rotator.Options{
		Keys: []string{"a/b", "ok", "-dash"}, Mount: "/x", Namespaces: []string{"Upper"}, Selector: "a in (", Rotate: "maybe",
		MaxKeyAge: -1, RetireAfter: -1, Concurrency: -1, StateNamespace: "a_b",
	}.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`"a/b" has a slash`, `"-dash" must be a valid label value`, `transit mount: "/x"`,
		`namespace "Upper"`, `label selector "a in ("`,
		`invalid rotate "maybe": must be auto, always or never`, "max key age", "retire after", "concurrency -1",
		`namespace "a_b"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	if _, err := rotator.Run(t.Context(), nil, nil, rotator.Options{Rotate: "maybe"}); err == nil ||
		!strings.HasPrefix(err.Error(), "InvalidOptions: ") {
		t.Errorf("Run: %v", err)
	}
}
