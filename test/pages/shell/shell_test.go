package shell

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	const text = `printf '{"a": "b"}' | secretmanager encrypt x -n demo \
    --from-literal token="$TOKEN" --from-file=a\ b > out.yaml # a comment
export NOW=$(kubectl get pods -o "jsonpath={.x}")
A=b
cat <<END
secretmanager nonsense
END
if true; then vault read transit/keys/$KEY; fi
`
	commands, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	want := []Command{
		{[]string{"printf", `{"a": "b"}`}, 1},
		{[]string{"secretmanager", "encrypt", "x", "-n", "demo", "--from-literal", "token=$TOKEN", "--from-file=a b"}, 1},
		{[]string{"kubectl", "get", "pods", "-o", "jsonpath={.x}"}, 3},
		{[]string{"cat"}, 5},
		{[]string{"true"}, 8},
		{[]string{"vault", "read", "transit/keys/$KEY"}, 8},
	}
	if diff := cmp.Diff(want, commands); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if _, err := Parse("if true; then"); err == nil {
		t.Error("half a command is no error")
	}
}
