"""Where Orbax has its newer style: `import stepstone.experimental.v1 as ocp`."""
