package main

import (
	"os"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestPage: the tables of docs/scale.md are those that the model prints.
func TestPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/scale.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, m := range regexp.MustCompile("(?ms)^```text\n(.*?)^```$").FindAllStringSubmatch(string(page), -1) {
		blocks = append(blocks, m[1])
	}
	if diff := cmp.Diff(Tables(Large), blocks); diff != "" {
		t.Errorf("docs/scale.md has other tables than `go run ./test/scale` prints (-model +page):\n%s", diff)
	}
}
