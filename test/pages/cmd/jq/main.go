// Command jq runs `jq -r PROGRAM` on one JSON value from standard input, with the library gojq, for the pages whose
// commands use jq.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/itchyny/gojq"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "jq:", err)
		os.Exit(2)
	}
}

func run(args []string) error {
	if len(args) != 2 || args[0] != "-r" {
		return fmt.Errorf("not a command that the pages show: %q", args)
	}
	query, err := gojq.Parse(args[1])
	if err != nil {
		return err
	}
	var input any
	if err := json.NewDecoder(os.Stdin).Decode(&input); err != nil {
		return err
	}
	for results := query.Run(input); ; {
		value, more := results.Next()
		if !more {
			return nil
		}
		if err, failed := value.(error); failed {
			return err
		}
		if text, ok := value.(string); ok {
			fmt.Println(text)
			continue
		}
		text, err := gojq.Marshal(value)
		if err != nil {
			return err
		}
		fmt.Println(string(text))
	}
}
