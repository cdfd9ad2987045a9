// Package shell parses a shell block into its commands, also those in pipes, loops and
// $(…). It runs nothing.
package shell

import (
	"fmt"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// A Command is one simple command: its name and arguments without their quotes.
// Expansions such as $NAME are unchanged.
type Command struct {
	Args []string
	Line int // in the text
}

func (c Command) String() string { return strings.Join(c.Args, " ") }

// Parse returns the commands of a text in the syntax of bash.
func Parse(text string) (commands []Command, err error) {
	file, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(text), "")
	if err != nil {
		return nil, fmt.Errorf("invalid shell syntax: %w", err)
	}
	syntax.Walk(file, func(n syntax.Node) bool {
		call, ok := n.(*syntax.CallExpr)
		if !ok || len(call.Args) == 0 {
			return true
		}
		c := Command{Line: int(call.Pos().Line())}
		for _, word := range call.Args {
			c.Args = append(c.Args, literal(text, word.Parts))
		}
		commands = append(commands, c)
		return true
	})
	return commands, nil
}

func literal(text string, parts []syntax.WordPart) string {
	var b strings.Builder
	for _, part := range parts {
		switch p := part.(type) {
		case *syntax.Lit:
			b.WriteString(unescape(p.Value))
		case *syntax.SglQuoted:
			b.WriteString(p.Value)
		case *syntax.DblQuoted:
			b.WriteString(literal(text, p.Parts))
		default:
			b.WriteString(text[p.Pos().Offset():p.End().Offset()])
		}
	}
	return b.String()
}

// unescape removes backslashes as a shell does.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			if i++; s[i] == '\n' {
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
