package rotator_test

import (
	"strings"
	"testing"

	"github.com/secretmanager-io/secretmanager/rotator"
)

func TestOptionsValidate(t *testing.T) {
	if err := (rotator.Options{Keys: []string{"app", "teams/red/team-*=red,red-dev"}}).Validate(); err != nil {
		t.Errorf("only keys: %v", err)
	}
	if err := (rotator.Options{}).Validate(); err == nil || !strings.Contains(err.Error(), "no transit key is selected") {
		t.Errorf("the zero value: %v", err)
	}
	// All problems at once.
	err := rotator.Options{
		Keys: []string{"ok", "-dash", "*", "teams/?", "[", "app=Upper", "twice", "transit/twice", "../x/app"}, MaxGap: -1,
		Retire: true, Release: []string{"name"}, Namespaces: []string{"Upper"}, Selector: "a in (", Rotate: "maybe",
		MaxKeyAge: -1, RetireAfter: -1, Concurrency: -1, StateNamespace: "a_b",
	}.Validate()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`"-dash": it must be a valid label value`, `transit key "*": it selects every key`,
		`"teams/?": it selects every key`, `"[": the pattern is not well-formed`, `"app=Upper": namespace "Upper"`,
		`"transit/twice" is given twice`, `"../x/app": `, "max gap", "--only-user", `Secret to release "name"`,
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

func TestMountIsValidated(t *testing.T) {
	err := rotator.Options{Keys: []string{"app"}, Mount: "/x"}.Validate()
	if err == nil || !strings.Contains(err.Error(), `transit mount: "/x"`) {
		t.Error(err)
	}
}
