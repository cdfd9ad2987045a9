// Package vaultcli stands in for the vault command, which takes minutes to build. It runs the
// commands that our programs print and our pages show, with Vault's own client.
package vaultcli

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

// Main runs the command in the arguments of the process, as the vault command does: it passes values to the API as
// strings. It does not return.
func Main() {
	client, err := api.NewClient(nil)
	if err == nil {
		client.SetToken(os.Getenv(api.EnvVaultToken))
		err = run(client, os.Args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	os.Exit(0)
}

func run(client *api.Client, args []string) error {
	line := strings.Join(args, " ")
	switch {
	case len(args) == 4 && args[0] == "secrets" && args[1] == "enable":
		return client.Sys().Mount(strings.TrimPrefix(args[2], "-path="), &api.MountInput{Type: args[3]})
	case len(args) == 3 && args[0] == "auth" && args[1] == "enable":
		return client.Sys().EnableAuthWithOptions(args[2], &api.EnableAuthOptions{Type: args[2]})
	case len(args) == 4 && args[0] == "auth" && args[1] == "enable":
		return client.Sys().EnableAuthWithOptions(strings.TrimPrefix(args[2], "-path="),
			&api.EnableAuthOptions{Type: args[3]})
	case len(args) == 4 && args[0] == "policy" && args[1] == "write" && args[3] == "-":
		text, err := io.ReadAll(os.Stdin)
		if err != nil {
			return err
		}
		return client.Sys().PutPolicy(args[2], string(text))
	case len(args) > 2 && strings.HasPrefix(line, "token create "):
		return createToken(client, args[2:])
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
	}
	return runLogical(client, args)
}

// createToken prints a new token, or with -field=token nothing else.
func createToken(client *api.Client, flags []string) error {
	request, only := &api.TokenCreateRequest{}, false
	for _, flag := range flags {
		name, value, _ := strings.Cut(flag, "=")
		switch name {
		case "-policy":
			request.Policies = append(request.Policies, value)
		case "-ttl":
			request.TTL = value
		case "-field":
			only = value == "token"
		default:
			return fmt.Errorf("unknown flag %s", flag)
		}
	}
	secret, err := client.Auth().Token().Create(request)
	if err != nil {
		return vaultError("Error creating token: %w", err)
	}
	if only {
		fmt.Print(secret.Auth.ClientToken)
		return nil
	}
	fmt.Printf("token    %s\npolicies    %v\n", secret.Auth.ClientToken, secret.Auth.Policies)
	return nil
}

// runLogical runs the commands that list mounts, and read and write paths.
func runLogical(client *api.Client, args []string) error {
	line := strings.Join(args, " ")
	switch {
	case line == "secrets list":
		mounts, err := client.Sys().ListMounts()
		if err != nil {
			return vaultError("Error listing secrets engines: %w", err)
		}
		fmt.Println("Path    Type    Accessor    Description")
		for _, path := range slices.Sorted(maps.Keys(mounts)) {
			fmt.Printf("%s    %s    %s    %s\n", path, mounts[path].Type, mounts[path].Accessor, mounts[path].Description)
		}
		return nil
	case len(args) == 2 && args[0] == "list":
		secret, err := client.Logical().List(args[1])
		if err := nothing("listing", args[1], secret, err); err != nil {
			return err
		}
		fmt.Println("Keys\n----")
		for _, key := range secret.Data["keys"].([]any) {
			fmt.Println(key)
		}
		return nil
	case len(args) == 3 && args[0] == "read" && strings.HasPrefix(args[1], "-field="):
		secret, err := client.Logical().Read(args[2])
		if err := nothing("reading", args[2], secret, err); err != nil {
			return err
		}
		value := secret.Data[strings.TrimPrefix(args[1], "-field=")]
		if value == nil {
			return vaultError("Field %q not present in secret", strings.TrimPrefix(args[1], "-field="))
		}
		fmt.Println(value)
		return nil
	case len(args) == 2 && args[0] == "read":
		secret, err := client.Logical().Read(args[1])
		if err := nothing("reading", args[1], secret, err); err != nil {
			return err
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
	case len(args) == 3 && args[0] == "write" && args[1] == "-f":
		_, err := client.Logical().Write(args[2], nil)
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

// vaultError is an error in the words of the vault command.
func vaultError(format string, args ...any) error { return fmt.Errorf(format, args...) }

// nothing reports a missing object as the vault command does.
func nothing(doing, path string, secret *api.Secret, err error) error {
	if err != nil {
		return vaultError("Error %s %s: %w", doing, path, err)
	}
	if secret == nil {
		return vaultError("No value found at %s", path)
	}
	return nil
}

func values(args []string) (map[string]any, error) {
	data := map[string]any{}
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		if !ok {
			return nil, fmt.Errorf("%q is not NAME=VALUE", arg)
		}
		if file, ok := strings.CutPrefix(value, "@"); ok {
			text, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			value = string(text)
		}
		data[name] = value
	}
	return data, nil
}
