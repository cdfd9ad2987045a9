package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/hashicorp/vault/api"
)

// vaultMain carries out the vault commands that we print and that the pages show,
// as the vault command does: it hands them to the API, texts as texts.
func vaultMain() {
	client, err := api.NewClient(nil)
	if err == nil {
		client.SetToken(os.Getenv(api.EnvVaultToken))
		err = vaultCommand(client, os.Args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "vault:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func vaultCommand(client *api.Client, args []string) error {
	line := strings.Join(args, " ")
	switch {
	case len(args) == 4 && args[0] == "secrets" && args[1] == "enable":
		return client.Sys().Mount(strings.TrimPrefix(args[2], "-path="), &api.MountInput{Type: args[3]})
	case len(args) == 4 && args[0] == "auth" && args[1] == "enable":
		return client.Sys().EnableAuthWithOptions(strings.TrimPrefix(args[2], "-path="), &api.EnableAuthOptions{Type: args[3]})
	case len(args) == 4 && args[0] == "policy" && args[1] == "write" && args[3] == "-":
		text, err := io.ReadAll(os.Stdin)
		if err != nil {
			return err
		}
		return client.Sys().PutPolicy(args[2], string(text))
	case strings.HasPrefix(line, "kv put kv/"):
		data, err := values(args[3:])
		if err != nil {
			return err
		}
		_, err = client.KVv2("kv").Put(context.Background(), strings.TrimPrefix(args[2], "kv/"), data)
		return err
	case len(args) == 5 && strings.HasPrefix(line, "kv get -format=json -field=data kv/"):
		secret, err := client.KVv2("kv").Get(context.Background(), strings.TrimPrefix(args[4], "kv/"))
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(secret.Data)
	case len(args) == 2 && args[0] == "read":
		secret, err := client.Logical().Read(args[1])
		if err != nil || secret == nil {
			return fmt.Errorf("%s: nothing there (%w)", args[1], err)
		}
		for _, name := range slices.Sorted(maps.Keys(secret.Data)) {
			fmt.Printf("%s    %v\n", name, secret.Data[name])
		}
		return nil
	case len(args) == 2 && args[0] == "delete":
		_, err := client.Logical().Delete(args[1])
		return err
	case len(args) > 3 && args[0] == "write" && strings.HasPrefix(args[1], "-field="):
		data, err := values(args[3:])
		if err != nil {
			return err
		}
		secret, err := client.Logical().Write(args[2], data)
		if err == nil {
			fmt.Print(secret.Data[strings.TrimPrefix(args[1], "-field=")])
		}
		return err
	case len(args) == 3 && args[0] == "write" && args[2] == "-":
		data := map[string]any{}
		if err := json.NewDecoder(os.Stdin).Decode(&data); err != nil {
			return err
		}
		_, err := client.Logical().Write(args[1], data)
		return err
	case len(args) > 2 && args[0] == "write":
		data, err := values(args[2:])
		if err != nil {
			return err
		}
		_, err = client.Logical().Write(args[1], data)
		return err
	}
	return fmt.Errorf("not one of the commands that we print: %s", line)
}

func values(args []string) (map[string]any, error) {
	data := map[string]any{}
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		if !ok {
			return nil, fmt.Errorf("%q is not NAME=VALUE", arg)
		}
		data[name] = value
	}
	return data, nil
}
