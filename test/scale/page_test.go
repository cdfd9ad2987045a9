package main

import (
	"os"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestPage verifies that docs/scale.md has the tables of the model.
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
		t.Errorf("the tables of docs/scale.md differ from the output of `go run ./test/scale` (-model +page):\n%s", diff)
	}
}
