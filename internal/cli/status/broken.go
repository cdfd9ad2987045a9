package status

import (
	"fmt"
	"strings"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/inventory"
)

// maxLocations bounds the locations that a cause names.
const maxLocations = 20

// cause is why entries are broken, and where.
type cause struct {
	text      string
	locations []string
	command   string // fixes all of them; empty if no command does
}

// reportBroken writes each cause once, with the locations that it affects.
func (o *Options) reportBroken(rows []*inventory.Secret) {
	for _, c := range causesOf(rows) {
		display.Fprintf(o.ErrOut, "broken: %s\n", c.text)
		shown := c.locations[:min(len(c.locations), maxLocations)]
		for _, location := range shown {
			display.Fprintf(o.ErrOut, "  %s\n", location)
		}
		if more := len(c.locations) - len(shown); more > 0 {
			display.Fprintf(o.ErrOut, "  and %d more, which -o json lists\n", more)
		}
		if c.command != "" {
			display.Fprintf(o.ErrOut, "  to undo that: %s\n", c.command)
		}
	}
}

// causesOf groups the problems of Secrets by their text and key, in the order of the Secrets.
func causesOf(rows []*inventory.Secret) (causes []*cause) {
	type group struct {
		text string
		key  ciphertext.Key
	}
	known := map[group]*cause{}
	lowest := map[*cause]int{}
	add := func(r *inventory.Secret, location, text string, retired int) {
		g := group{text, r.TransitKey()}
		c := known[g]
		if c == nil {
			c = &cause{text: text}
			known[g], causes = c, append(causes, c)
		}
		c.locations = append(c.locations, location)
		if retired > 0 && (lowest[c] == 0 || retired < lowest[c]) {
			lowest[c] = retired
			c.command = display.ShellWords("vault", "write", r.Mount+"/keys/"+r.Key+"/config",
				fmt.Sprintf("min_decryption_version=%d", retired))
		}
	}
	for _, r := range rows {
		for _, problem := range r.Problems {
			add(r, r.Namespace+"/"+r.Name, problem, 0)
		}
		for _, e := range r.Entries {
			if e.Problem == "" {
				continue
			}
			retired := 0
			if e.Version > 0 && e.Version < r.MinDecryption {
				retired = e.Version
			}
			add(r, strings.Join([]string{r.Namespace, r.Name, e.Name}, "/"), "entry "+e.Problem, retired)
		}
	}
	return causes
}
