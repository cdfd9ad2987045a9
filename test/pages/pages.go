// Package pages reads the documentation for tests that check it: it lists the
// pages, their fenced blocks and the headings that links may point to, and runs
// the pages whose commands are executed.
package pages

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"
)

// A Block is a fenced block of a page.
type Block struct {
	Kind string // the word after the fence: sh, yaml, text …
	Text string
	Line int // of its first line of text
}

// Files returns every page below a directory, sorted by path, except hidden files, build
// output and testdata.
func Files(root string) (files []string, err error) {
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "bin" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !d.IsDir() && strings.HasSuffix(path, ".md") {
			files = append(files, path)
		}
		return nil
	})
	return files, err
}

// Blocks returns the fenced blocks of a page, also indented ones, as in a list. A block
// without a closing fence ends with the page.
func Blocks(page string) (blocks []Block) {
	var block *Block
	indent := ""
	for i, line := range strings.Split(page, "\n") {
		bare := strings.TrimLeft(line, " ")
		switch {
		case block == nil && strings.HasPrefix(bare, "```"):
			indent = line[:len(line)-len(bare)]
			block = &Block{Kind: strings.TrimSpace(strings.TrimPrefix(bare, "```")), Line: i + 2}
		case block != nil && strings.TrimRight(bare, " ") == "```":
			blocks = append(blocks, *block)
			block = nil
		case block != nil:
			block.Text += strings.TrimPrefix(line, indent) + "\n"
		}
	}
	if block != nil {
		blocks = append(blocks, *block)
	}
	return blocks
}

// Prose returns a page without its blocks, with the same line numbers.
func Prose(page string) string {
	lines := strings.Split(page, "\n")
	for _, b := range Blocks(page) {
		for i := range strings.Count(b.Text, "\n") {
			lines[b.Line-1+i] = ""
		}
	}
	return strings.Join(lines, "\n")
}

var (
	heading = regexp.MustCompile(`(?m)^#{1,6} +(.*?) *#*$`)
	inlined = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
)

// Anchors returns the valid fragments of links to the page: each heading in lower case,
// without punctuation and with dashes for spaces. A number is appended to repeated
// headings.
func Anchors(page string) map[string]bool {
	anchors := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(Prose(page), -1) {
		name := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, inlined.ReplaceAllString(m[1], "$1"))
		anchor := name
		for n := 1; anchors[anchor]; n++ {
			anchor = fmt.Sprintf("%s-%d", name, n)
		}
		anchors[anchor] = true
	}
	return anchors
}

// Pattern returns the regular expression that matches output as a page shows it.
// "…" matches anything. The space between columns may differ from the page, and the
// output may have more lines in between.
func Pattern(want string) *regexp.Regexp {
	var lines []string
	for line := range strings.Lines(want) {
		words := strings.Fields(line)
		for i, w := range words {
			words[i] = strings.ReplaceAll(regexp.QuoteMeta(w), "…", ".*")
		}
		lines = append(lines, strings.Join(words, `\s+`))
	}
	return regexp.MustCompile(fmt.Sprintf(`(?m)^\s*%s\s*$`, strings.Join(lines, `\s*\n(?:.*\n)*?\s*`)))
}

// Run executes a page as it is written. It saves a block of YAML whose first line is
// "# FILE.yaml" as that file below the directory. It calls shell for each shell block, in
// order. If a text block follows, the output must match its [Pattern]. It returns the
// number of blocks that were run, and of those whose output was compared.
func Run(page, dir string, shell func(Block) (output string, err error)) (shells, compared int, err error) {
	blocks := Blocks(page)
	for i, b := range blocks {
		switch b.Kind {
		case "yaml":
			name, body, _ := strings.Cut(b.Text, "\n")
			if file, ok := strings.CutPrefix(name, "# "); ok && strings.HasSuffix(file, "yaml") && filepath.IsLocal(file) {
				if err := save(filepath.Join(dir, file), body); err != nil {
					return shells, compared, err
				}
			}
		case "sh":
			shells++
			out, err := shell(b)
			if err != nil {
				return shells, compared, fmt.Errorf("line %d of the page: %w\n%s\n%s", b.Line, err, b.Text, out)
			}
			if i+1 < len(blocks) && blocks[i+1].Kind == "text" {
				compared++
				if !Pattern(blocks[i+1].Text).MatchString(out) {
					return shells, compared,
						fmt.Errorf("line %d of the page: want the output\n%s\ngot\n%s", b.Line, blocks[i+1].Text, out)
				}
			}
		}
	}
	return shells, compared, nil
}

// save writes a file, and creates its directory if needed.
func save(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o600)
}
