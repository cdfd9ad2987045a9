// Command promql says what PromQL expressions ask for, so that a test can tell
// whether that exists.
//
// It reads a JSON array of expressions from the standard input stream and writes
// an array of as many answers: the metrics that each selects, with the labels that
// it names and the values that it compares them with, or why it does not parse.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
)

type answer struct {
	Error     string     `json:"error,omitempty"`
	Selectors []selector `json:"selectors,omitempty"`
	Labels    []string   `json:"labels,omitempty"` // of by, without, on, ignoring, group_left
}

type selector struct {
	Metric   string    `json:"metric"`
	Matchers []matcher `json:"matchers,omitempty"`
}

type matcher struct {
	Label string `json:"label"`
	Op    string `json:"op"`
	Value string `json:"value"`
}

func main() {
	var expressions []string
	if err := json.NewDecoder(os.Stdin).Decode(&expressions); err != nil {
		fmt.Fprintln(os.Stderr, "promql: reading a JSON array of expressions:", err)
		os.Exit(2)
	}
	answers := make([]answer, len(expressions))
	for i, text := range expressions {
		answers[i] = read(text)
	}
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		fmt.Fprintln(os.Stderr, "promql:", err)
		os.Exit(1)
	}
}

func read(text string) (a answer) {
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(text)
	if err != nil {
		return answer{Error: err.Error()}
	}
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			s := selector{Metric: n.Name}
			for _, m := range n.LabelMatchers {
				if m.Name != model.MetricNameLabel {
					s.Matchers = append(s.Matchers, matcher{m.Name, m.Type.String(), m.Value})
				}
			}
			a.Selectors = append(a.Selectors, s)
		case *parser.AggregateExpr:
			a.Labels = append(a.Labels, n.Grouping...)
		case *parser.BinaryExpr:
			if m := n.VectorMatching; m != nil {
				a.Labels = append(append(a.Labels, m.MatchingLabels...), m.Include...)
			}
		}
		return nil
	})
	return a
}
