package provider

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/itchyny/gojq"

	"github.com/secretmanager-io/secretmanager/test/pages"
	"github.com/secretmanager-io/secretmanager/test/pages/shell"
	"github.com/secretmanager-io/secretmanager/transit"
)

// jq runs a jq command of docs/audit.md, as far as the page uses jq. Values of --arg are
// replaced by those of args. Files are given by name; without a file it reads stdin.
func jq(t testing.TB, line []string, args map[string]any, files map[string]string, stdin string) []any {
	t.Helper()
	var names []string
	var values []any
	var program, file string
	flags := ""
	for i := 1; i < len(line); i++ {
		switch arg := line[i]; {
		case arg == "--arg" || arg == "--slurpfile":
			name := line[i+1]
			names = append(names, "$"+name)
			value, replaced := args[name]
			if arg == "--slurpfile" {
				value, replaced = jsonLines(t, files[line[i+2]]), true
			}
			if !replaced {
				t.Fatalf("no value for --arg %s", name)
			}
			values = append(values, value)
			i += 2
		case strings.HasPrefix(arg, "-"):
			flags += arg[1:]
		case program == "":
			program = arg
		default:
			file = arg
		}
	}
	text := stdin
	if file != "" {
		text = files[file]
	}
	if strings.Trim(flags, "rcnR") != "" || text == "" {
		t.Fatalf("jq %v: cannot be run here", line[1:])
	}
	var inputs []any
	if strings.Contains(flags, "R") {
		for line := range strings.Lines(text) {
			inputs = append(inputs, strings.TrimSuffix(line, "\n"))
		}
	} else {
		inputs = jsonLines(t, text)
	}
	query, err := gojq.Parse(program)
	if err != nil {
		t.Fatalf("jq %s: %v", program, err)
	}
	code, err := gojq.Compile(query, gojq.WithVariables(names), gojq.WithInputIter(gojq.NewIter(inputs...)))
	if err != nil {
		t.Fatalf("jq %s: %v", program, err)
	}
	each := inputs
	if strings.Contains(flags, "n") {
		each = []any{nil}
	}
	var results []any
	for _, input := range each {
		for iter := code.Run(input, values...); ; {
			v, ok := iter.Next()
			if !ok {
				break
			}
			if err, failed := v.(error); failed {
				t.Fatalf("jq %s: %v", program, err)
			}
			results = append(results, v)
		}
	}
	return results
}

func jsonLines(t testing.TB, text string) (all []any) {
	t.Helper()
	for decoder := json.NewDecoder(strings.NewReader(text)); ; {
		var v any
		switch err := decoder.Decode(&v); err {
		case nil:
			all = append(all, v)
		case io.EOF:
			return all
		default:
			t.Fatal(err)
		}
	}
}

// TestAuditPage runs each jq command of docs/audit.md on the logs of real mounts, of
// a rewrap, and of a client that sends false headers.
func TestAuditPage(t *testing.T) {
	text, err := os.ReadFile("../docs/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	const mounts = 8
	a := attribute(t, mounts, 2)
	denied := mountRequest(a.params("roleName", "nobody"), a.entries(t, "v"))
	if _, err := a.served.Mount(t.Context(), denied); err == nil {
		t.Fatal("no error")
	}
	client, err := transit.NewClient(transit.Config{Address: a.Vault.Address})
	if err != nil {
		t.Fatal(err)
	}
	ctx := transit.WithAudit(t.Context(), transit.Audit{RunID: "run-1", Verb: "rotator"})
	root := client.Session("", transit.StaticToken(a.Vault.RootToken))
	item := []transit.Item{{Data: []byte("vault:v1:AAAA"), Context: []byte("x")}}
	if _, err := root.Rewrap(ctx, a.key, item); err != nil {
		t.Fatal(err)
	}
	records := a.served.records(t)
	provider := a.served.audit.String()
	honest, err := os.ReadFile(a.vaultAudit)
	if err != nil {
		t.Fatal(err)
	}
	// A token of pod app-0, with headers of pod app-1.
	ctx = transit.WithAudit(t.Context(), transit.Audit{Namespace: a.namespace, ServiceAccount: "app", Pod: "app-1",
		PodUID: "uid-1", RequestID: "made-up"})
	liar := client.Session("",
		client.NewLoginSource(transit.Login{Mount: "jwt", Role: a.namespace,
			JWT: func() (string, error) { return a.jwt, nil }}))
	if _, err := liar.Decrypt(ctx, a.key, item); err != nil {
		t.Fatal(err)
	}
	lying, err := os.ReadFile(a.vaultAudit)
	if err != nil {
		t.Fatal(err)
	}

	var commands [][]string
	for _, b := range pages.Blocks(page) {
		if b.Kind != "sh" {
			continue
		}
		parsed, err := shell.Parse(b.Text)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range parsed {
			if c.Args[0] == "jq" {
				commands = append(commands, c.Args)
			}
		}
	}
	type expectation struct {
		marker        string // in the command
		honest, lying int    // number of results
		all           []string
	}
	expected := []expectation{
		{"fromjson?", mounts + 1, mounts + 1, nil},
		{"$secret", mounts/2 + 1, mounts/2 + 1, []string{"decrypted", "node-0", "app-0", "x:v1"}},
		{"$path", mounts, mounts + 1, []string{"node-0", a.namespace, "app-1"}},
		{"$records", mounts, mounts + 1, []string{"x:v1", "app-0", "transit/decrypt/"}},
		{"verified: $m", 0, 1, nil},
		{`"denied"`, 1, 1, []string{"LoginDenied", "nobody"}},
		{"run-id", 1, 1, []string{"rotator\trun-1", "transit/rewrap/"}},
	}
	if len(commands) != len(expected) {
		t.Fatalf("the page has %d jq commands, and the test knows %d", len(commands), len(expected))
	}
	args := map[string]any{"since": "2020-01-01T00:00:00Z", "namespace": a.namespace, "secret": "matrix",
		"path": a.key.Mount + "/decrypt/" + a.key.Name}
	for i, want := range expected {
		line := commands[i]
		if !strings.Contains(strings.Join(line, " "), want.marker) {
			t.Errorf("command %d of the page is %v, want that of %s", i+1, line, want.marker)
			continue
		}
		for vaultLog, n := range map[string]int{string(honest): want.honest, string(lying): want.lying} {
			files := map[string]string{"provider-audit.log": provider, "vault-audit.log": vaultLog}
			results := jq(t, line, args, files, "not JSON\n"+a.served.log.String()+provider)
			shown, err := json.Marshal(results)
			if err != nil {
				t.Fatal(err)
			}
			if len(results) != n {
				t.Errorf("%s: %d results, want %d: %s", want.marker, len(results), n, shown)
			}
			for _, text := range want.all {
				if !strings.Contains(strings.ReplaceAll(string(shown), `\t`, "\t"), text) {
					t.Errorf("%s: no %q in %s", want.marker, text, shown)
				}
			}
			if want.marker == "verified: $m" && n > 0 &&
				!(strings.Contains(string(shown), `"pod_name":"app-0"`) && strings.Contains(string(shown), `["app-1"]`)) {
				t.Errorf("the false headers are not shown: %s", shown)
			}
		}
	}
	// The output of kubectl logs is the provider's audit log.
	if n := len(parseRecords(t, provider)); n != len(records) {
		t.Errorf("%d records", n)
	}

	// The page registers the headers that are sent.
	m := regexp.MustCompile(`(?m)^for name in (.*); do$`).FindStringSubmatch(page)
	if m == nil {
		t.Fatal("the page registers no headers")
	}
	var names []string
	for _, name := range strings.Fields(m[1]) {
		names = append(names, "X-SecretManager-"+name)
	}
	if !slices.Equal(names, transit.AuditHeaders()) {
		t.Errorf("the page registers %v, want %v", names, transit.AuditHeaders())
	}
	table, _, _ := strings.Cut(page[strings.Index(page, "\n## The headers"):], "\nNamespaces, pods")
	for _, name := range transit.AuditHeaders() {
		if !regexp.MustCompile("`(X-SecretManager)?" + strings.TrimPrefix(name, "X-SecretManager") + "`").MatchString(table) {
			t.Errorf("the table has no %s", name)
		}
	}
	// The role of these mounts maps the claims of the page.
	_, example, _ := strings.Cut(page, "```json\n")
	example, _, _ = strings.Cut(example, "```")
	var role struct {
		Mappings map[string]string `json:"claim_mappings"`
	}
	if err := json.NewDecoder(bytes.NewBufferString(example)).Decode(&role); err != nil ||
		fmt.Sprint(role.Mappings) != fmt.Sprint(podMappings) {
		t.Errorf("the page maps %v, %v", role.Mappings, err)
	}
}
