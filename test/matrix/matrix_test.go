package matrix

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/secretmanager-io/secretmanager/test/programs"
)

// TestPage checks that the page shows the results.
func TestPage(t *testing.T) {
	root, err := programs.Root()
	if err != nil {
		t.Fatal(err)
	}
	all, err := Load(root)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	want, err := all.update(text)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, want) {
		t.Errorf("the table of %s is not that of %s; want:\n%s", page, resultsFile, all.table())
	}
}

// TestProblems checks that a result is missing unless the suite passed with the versions that the column has.
func TestProblems(t *testing.T) {
	c := Column{programs.Version{Name: "1.2", Tag: "v1.2.3"},
		programs.Version{Name: programs.Driver.Default, Tag: "v4.5.6"}}
	passed := func(suite string) Result {
		return Result{Column: c.String(), Suite: suite, Kubernetes: "v1.2.3", Driver: "v4.5.6", Passed: 1}
	}
	complete := Results{passed("API server"), passed("cluster")}
	if problems := complete.Problems([]Column{c}); len(problems) > 0 {
		t.Errorf("every suite passed: %v", problems)
	}
	failed, old, extra := passed("cluster"), passed("cluster"), passed("cluster")
	failed.Failed, old.Kubernetes, extra.Column = []string{"p.TestB"}, "v1.2.2", "Kubernetes 1.1, driver 4"
	for want, all := range map[string]Results{
		"cluster: no result":                {passed("API server")},
		"cluster: 1 failed":                 {passed("API server"), failed},
		"cluster: ran with v1.2.2":          {passed("API server"), old},
		"Kubernetes 1.1, driver 4: cluster": append(Results{extra}, complete...),
	} {
		if problems := all.Problems([]Column{c}); len(problems) != 1 || !strings.Contains(problems[0], want) {
			t.Errorf("%v, want %q", problems, want)
		}
	}
}

// TestColumns checks that the defaults are columns, and each column differs from them in at most one version.
func TestColumns(t *testing.T) {
	columns, err := Columns()
	if err != nil {
		t.Fatal(err)
	}
	defaults := 0
	for _, c := range columns {
		kubernetes, driver := c.Kubernetes.Name == programs.Kubernetes.Default, c.Driver.Name == programs.Driver.Default
		if !kubernetes && !driver {
			t.Errorf("%s differs in both", c)
		}
		if kubernetes && driver {
			defaults++
		}
	}
	if defaults != 1 || len(columns) < 4 {
		t.Errorf("columns: %v", columns)
	}
}

func TestRead(t *testing.T) {
	const output = `{"Action":"start","Package":"p"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Test":"TestA/sub"}
{"Action":"fail","Package":"p","Test":"TestB/sub"}
{"Action":"fail","Package":"p","Test":"TestB"}
{"Action":"skip","Package":"p","Test":"TestC"}
not JSON
{"Action":"output","Package":"p","Output":"text\n"}
{"Action":"fail","Package":"p"}
{"Action":"fail","Package":"p2"}
{"Action":"pass","Package":"q"}
`
	var r Result
	var log strings.Builder
	if err := r.read(strings.NewReader(output), &log, io.Discard); err != nil {
		t.Fatal(err)
	}
	if r.Passed != 1 || r.Skipped != 1 || !slices.Equal(r.Failed, []string{"p.TestB", "p2"}) {
		t.Errorf("got %+v", r)
	}
	if got, want := log.String(), "not JSON\ntext\n"; got != want {
		t.Errorf("log: %q, want %q", got, want)
	}
}

func TestSet(t *testing.T) {
	var all Results
	all.Set(Result{Column: "b", Suite: "x", Passed: 1})
	all.Set(Result{Column: "a", Suite: "y", Failed: []string{"p.TestB"}})
	all.Set(Result{Column: "a", Suite: "x", Kubernetes: "v1.2.3", Driver: "v4", Commit: "0123456789", Seconds: 90})
	all.Set(Result{Column: "b", Suite: "x", Passed: 2, Skipped: 1})
	got, err := all.update([]byte("before\n" + mark + "old\n" + end + "after\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := "before\n" + mark + `| Kubernetes | driver | suite | tests | when | duration |
|---|---|---|---|---|---|
| 1.2.3 | 4 | x | 0 passed | 0001-01-01, 01234567 | 1m30s |
|  |  | y | 0 passed, **1 failed**: p.TestB | 0001-01-01,  | 0s |
|  |  | x | 2 passed, 1 skipped | 0001-01-01,  | 0s |
` + end + "after\n"
	if string(got) != want {
		t.Errorf("got:\n%s", got)
	}
	if _, err := all.update([]byte("no place")); err == nil {
		t.Error("a page without a place for the table is accepted")
	}
}
