package provider

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/failure"
)

const auditSchemaFile = "../docs/reference/audit-record.schema.json"

// recordSchema is the schema in the documentation.
var recordSchema = sync.OnceValues(func() (*jsonschema.Schema, error) {
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	return c.Compile(auditSchemaFile)
})

// parseRecords reads an audit log and validates each line against the schema.
func parseRecords(t testing.TB, text string) (records []auditRecord) {
	t.Helper()
	schema, err := recordSchema()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text) {
		document, err := jsonschema.UnmarshalJSON(strings.NewReader(line))
		if err == nil {
			err = schema.Validate(document)
		}
		var rec auditRecord
		if err == nil {
			err = json.Unmarshal([]byte(line), &rec)
		}
		if err != nil {
			t.Errorf("audit record %s: %v", line, err)
			continue
		}
		records = append(records, rec)
	}
	return records
}

// records returns the audit records after all of them are written.
func (s *served) records(t testing.TB) []auditRecord {
	t.Helper()
	s.provider.audit.Flush(t.Context())
	return parseRecords(t, s.audit.String())
}

// TestAuditRecordSchema verifies that the schema rejects invalid records, and that the page,
// the schema and the code have the same fields.
func TestAuditRecordSchema(t *testing.T) {
	good := `{"schema":"secretmanager.io/audit/v1","time":"2026-11-26T14:00:00Z",` +
		`"requestId":"AAAAAAAAAAAAAAAAAAAAAAAAAA","outcome":"failed","reason":"Internal","source":"none","entries":[]}`
	if n := len(parseRecords(t, good)); n != 1 {
		t.Fatal("the schema rejects a valid record")
	}
	// The schema has the outcomes of the code.
	for _, reason := range failure.All(failure.Mount) {
		outcome, source := auditOutcome(reason, "")
		record := strings.NewReplacer(`"failed"`, `"`+outcome+`"`, `"Internal"`, `"`+reason.String()+`"`, `"none"`,
			`"`+source+`"`).Replace(good)
		parseRecords(t, record)
	}
	for _, bad := range [][2]string{
		{"v1", "v2"}, {`"failed"`, `"decrypted"`}, {`"failed"`, `"denied"`}, {`"Internal"`, `"OK"`}, {"14:00", "14"},
		{`"none"`, `"cache"`},
		{`[]`, `[{"name":"x"}]`}, {`[]`, `[{"name":"x","keyVersion":0,"decrypted":true}]`},
		{`"entries":[]`, `"entries":null`},
		{`"source"`, `"plaintext":"x","source"`}, {"AAAAAA", "aaaaaa"},
	} {
		found := recorder{TB: t}
		parseRecords(&found, strings.Replace(good, bad[0], bad[1], 1))
		if !found.failed {
			t.Errorf("the schema accepts %s for %s", bad[1], bad[0])
		}
	}

	text, err := os.ReadFile(auditSchemaFile)
	if err != nil {
		t.Fatal(err)
	}
	type property struct {
		Description string
		Items       struct{ Properties map[string]property }
	}
	var schema struct{ Properties map[string]property }
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	row := func(path, name string, properties map[string]property) property {
		p, ok := properties[name]
		if !ok {
			t.Errorf("the schema has no %s", path)
		}
		delete(properties, name)
		fmt.Fprintf(&table, "| `%s` | %s |\n", path, p.Description)
		return p
	}
	fields := func(of any) (names []string) {
		for i := range reflect.TypeOf(of).NumField() {
			name, _, _ := strings.Cut(reflect.TypeOf(of).Field(i).Tag.Get("json"), ",")
			names = append(names, name)
		}
		return names
	}
	for _, name := range fields(auditRecord{}) {
		p := row(name, name, schema.Properties)
		if name == "entries" {
			for _, inner := range fields(auditEntry{}) {
				row("entries[]."+inner, inner, p.Items.Properties)
			}
			if len(p.Items.Properties) > 0 {
				t.Errorf("entries have no %v", p.Items.Properties)
			}
		}
	}
	if len(schema.Properties) > 0 {
		t.Errorf("records have no %v", schema.Properties)
	}
	page, err := os.ReadFile("../docs/reference/audit-record.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "\n|---|---|\n"+table.String()+"\n") {
		t.Errorf("docs/reference/audit-record.md does not have this table:\n%s", table.String())
	}
	// The example on the page is a valid record.
	_, example, _ := strings.Cut(string(page), "```json\n")
	example, _, _ = strings.Cut(example, "```")
	var line bytes.Buffer
	if err := json.Compact(&line, []byte(example)); err != nil {
		t.Fatal(err)
	}
	if n := len(parseRecords(t, line.String())); n != 1 {
		t.Error("the page has no example")
	}
}

// TestAuditRecords verifies that each mount has one record, whatever its outcome, with the
// request id of the log and of Vault's headers.
func TestAuditRecords(t *testing.T) {
	e := newEnv(t)
	var mu sync.Mutex
	headers := map[string][]string{} // operations by request id
	address := e.faulty(func(_ http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		operation := "login"
		if isDecrypt(r) {
			operation = "decrypt"
		}
		id := r.Header.Get("X-SecretManager-Request-Id")
		for name, want := range map[string]string{
			"Namespace": e.namespace, "Pod": "app-0", "Pod-Uid": "uid-0", "Service-Account": "app", "Secret": "matrix",
			"Class": "matrix", "Node": "node-0",
		} {
			if got := r.Header.Get("X-SecretManager-" + name); got != want {
				t.Errorf("%s has %s %q, want %q", operation, name, got, want)
			}
		}
		headers[id] = append(headers[id], operation)
		return false
	})
	x, y := e.encrypt(t, ciphertext.Strict, "matrix", "x", "1"), e.encrypt(t, ciphertext.Strict, "matrix", "y", "2")
	e.Write(e.key.String()+"/rotate", nil)
	z := e.encrypt(t, ciphertext.Strict, "matrix", "z", "3")

	base := auditRecord{
		Schema: auditSchema, Node: "node-0", Namespace: e.namespace, Pod: "app-0", PodUID: "uid-0", ServiceAccount: "app",
		Class: "matrix", Secret: "matrix", Key: "transit/" + e.key.Name, VaultAddress: address, AuthMount: "jwt",
		Role:    e.namespace,
		Entries: []auditEntry{},
	}
	as := func(outcome, reason, source string, entries ...auditEntry) auditRecord {
		rec := base
		rec.Outcome, rec.Reason, rec.Source = outcome, reason, source
		if entries != nil {
			rec.Entries = entries
		}
		return rec
	}
	changed := func(rec auditRecord, change func(*auditRecord)) auditRecord {
		change(&rec)
		return rec
	}
	both := []auditEntry{{"x", 1, true}, {"z", 2, true}}
	for _, test := range []struct {
		name    string
		params  map[string]string
		entries map[string]string
		want    []auditRecord // of three identical mounts
		asked   []string      // requests to Vault for the first
	}{
		{"mounted", e.params(), map[string]string{"x": x, "z": z}, []auditRecord{
			as("decrypted", "OK", "vault", both...), as("repeated", "OK", "memory", both...),
		}, []string{"login", "decrypt"}},
		{"an entry that does not decrypt", e.params(), map[string]string{"x": y, "z": z}, []auditRecord{
			as("failed", "CiphertextMismatch", "vault", auditEntry{"x", 1, false}, auditEntry{"z", 2, true}),
		}, []string{"login", "decrypt"}},
		{"files that cannot be made", e.params("objects", "- {objectName: f, secretKey: z, field: a}"),
			map[string]string{"z": z}, []auditRecord{
				as("failed", "InvalidContent", "vault", auditEntry{"z", 2, true}),
			}, []string{"login", "decrypt"}},
		{"a login that is refused", e.params("roleName", "nobody"), map[string]string{"z": z}, []auditRecord{
			changed(as("denied", "LoginDenied", "vault", auditEntry{"z", 2, false}), func(r *auditRecord) { r.Role = "nobody" }),
		}, []string{"login"}},
		{"a decrypt that is refused", e.params("transitKey", "another"), map[string]string{"z": z}, []auditRecord{
			changed(as("denied", "DecryptDenied", "vault", auditEntry{"z", 2, false}),
				func(r *auditRecord) { r.Key = "transit/another" }),
		}, []string{"login", "decrypt"}},
		{"no ciphertext", e.params(), nil, []auditRecord{as("failed", "CiphertextMissing", "none")}, nil},
		{"a token of another pod", e.params(class.AttributePodUID, "uid-1", class.AttributeTokens,
			e.params()[class.AttributeTokens]), map[string]string{"z": z}, []auditRecord{
			changed(as("denied", "TokenMismatch", "none"), func(r *auditRecord) { r.PodUID = "uid-1" }),
		}, nil},
		{"parameters that are wrong", e.params("scope", "wide"), map[string]string{"z": z}, []auditRecord{
			changed(as("failed", "InvalidParameters", "none"),
				func(r *auditRecord) { r.Key, r.VaultAddress, r.AuthMount, r.Role = "", "", "", "" }),
		}, nil},
		{"names that are none", e.params(class.AttributeClass, "a\nb", "secretName", "A B", class.AttributePodUID,
			"a\r\nb"), map[string]string{"z": z}, []auditRecord{
			changed(as("failed", "InvalidParameters", "none"), func(r *auditRecord) {
				r.Class, r.Secret, r.PodUID, r.Key, r.VaultAddress, r.AuthMount, r.Role = "", "", "", "", "", "", ""
			}),
		}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := serve(t, address, cached, within(5*time.Second))
			request := mountRequest(test.params, test.entries)
			before := time.Now()
			for range 3 {
				s.Mount(t.Context(), request)
			}
			records := s.records(t)
			want := test.want
			if len(want) == 1 {
				want = []auditRecord{want[0], want[0], want[0]}
			}
			if diff := cmp.Diff(want, records,
				cmpopts.IgnoreFields(auditRecord{}, "Time", "RequestID", "DecryptRequestID")); diff != "" {
				t.Fatalf("(-want +got):\n%s", diff)
			}
			ids := map[string]bool{}
			for _, rec := range records {
				if rec.Time.Before(before.Add(-time.Second)) || rec.Time.After(time.Now()) {
					t.Errorf("the time is %s", rec.Time)
				}
				if !strings.Contains(s.log.String(), "request="+rec.RequestID+" ") {
					t.Errorf("the log does not have request %s:\n%s", rec.RequestID, s.log)
				}
				if rec.Outcome == outcomeRepeated && rec.DecryptRequestID != records[0].RequestID {
					t.Errorf("repeated from %q, not from %q", rec.DecryptRequestID, records[0].RequestID)
				}
				ids[rec.RequestID] = true
			}
			if len(ids) != len(records) {
				t.Errorf("%d records have %d ids", len(records), len(ids))
			}
			mu.Lock()
			defer mu.Unlock()
			if diff := cmp.Diff(test.asked, headers[records[0].RequestID]); diff != "" {
				t.Errorf("Vault was asked (-want +got):\n%s", diff)
			}
		})
	}
	if headers[""] != nil {
		t.Errorf("requests to Vault without a request id: %v", headers[""])
	}
}

// TestAuditOff verifies that without an audit log there are no records, not even in the cache.
func TestAuditOff(t *testing.T) {
	e := newEnv(t)
	s := serve(t, e.Vault.Address, cached, func(c *Config) { c.Audit = nil })
	for range 2 {
		if _, err := s.Mount(t.Context(),
			mountRequest(e.params(), map[string]string{"x": e.encrypt(t, ciphertext.Strict, "matrix", "x", "1")})); err != nil {
			t.Fatal(err)
		}
	}
	for at := s.provider.responses.order.Front(); at != nil; at = at.Next() {
		if a := at.Value.(*cachedMount); a.record != "" {
			t.Errorf("the cache has the record %s", a.record)
		}
	}
}
